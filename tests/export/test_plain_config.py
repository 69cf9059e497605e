"""Configs of students: what stays, what goes, and what is said about it."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config
from small import ROOT, build
from small_cls import build_classifier

from kd_det.export.plain_config import plain_config
from kd_det.recipes import load_named

CONFIGS = ROOT / "configs"
# One of each kind of detector, student, data and algorithm.
RECIPES = (
    "digits/plain",
    "digits/teacher",
    "digits/cwd_nd_kd",
    "digits/review_nd_kd",
    "frcnn_r101_r18_robust",
    "frcnn_r101_r50_review_nd",
    "frcnn_r50_mv2_dkd_nd",
    "mrcnn_r101_r50_review_nd",
    "cascade_r101_r50_kd_nd",
    "retinanet_r101_r50_review",
    "mixed/fbkd_frcnn_r101_r50",
    "mixed/pkd_frcnn_r101_r50",
    "mixed/dkd_r34_r18",
    "cls/digits/review_nd",
    "cls/cifar100_r56_r20_kd_nd",
    "cls/cifar100_r32x4_sv1_review_nd",
    "cls/imagenet_r34_r18_kd_nd",
    "cls/imagenet_r50_mv1_dkd_nd",
    "cls/imagenet_regnety160_deitb_kd_nd",
    "cls/imagenet_vitb_r18_kd_nd",
)


def recipe(name: str) -> Config:
    cfg = load_named(CONFIGS / f"{name}.py")
    object.__setattr__(cfg, "_format_python_code", False)
    return cfg


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_a_plain_config(name: str):
    plain = plain_config(recipe(name))
    text = plain.text
    if not plain.requires:
        assert "kd_det." not in text and "mmrazor" not in text and "mmcls" not in text
    assert "Pretrained" not in text and "distiller" not in text and "teacher" not in text
    assert plain.cfg.default_scope in ("mmdet", "mmpretrain")
    if "cls/digits" not in name:
        assert {"train_cfg", "val_evaluator", "test_dataloader"} <= plain.cfg.keys()


@pytest.mark.parametrize(
    "name, requires",
    [
        ("frcnn_r101_r18_review_nd", []),
        ("cascade_r101_r50_kd_nd", []),
        ("mixed/pkd_frcnn_r101_r50", []),
        ("mixed/dkd_r34_r18", []),
        ("cls/imagenet_r34_r18_kd_nd", []),
        ("cls/cifar100_r56_r20_kd_nd", ["kd_det"]),
        ("cls/imagenet_regnety160_deitb_kd_nd", ["mmrazor"]),
    ],
)
def test_the_student_is_built_offline_with_the_same_weights(name, requires, offline):
    cfg = recipe(name)
    plain = plain_config(cfg)
    assert plain.requires == requires
    alone = (build if plain.cfg.default_scope == "mmdet" else build_classifier)(plain.cfg.model)
    student = build_classifier(cfg.model.architecture, plain.cfg.default_scope)
    shapes = {key: value.shape for key, value in student.state_dict().items()}
    assert {key: value.shape for key, value in alone.state_dict().items()} == shapes


def test_the_runs_own_config_is_left_alone():
    cfg = recipe("frcnn_r101_r18_review_nd")
    before = cfg.pretty_text
    plain_config(cfg)
    assert cfg.pretty_text == before


def test_the_algorithms_preprocessor_makes_the_students_batches():
    cfg = recipe("frcnn_r101_r18_review_nd")
    own = cfg.model.architecture.data_preprocessor
    assert plain_config(cfg).cfg.model.data_preprocessor == own
    cfg.data_preprocessor = dict(own, mean=[1, 2, 3])
    assert plain_config(cfg).cfg.model.data_preprocessor.mean == [1, 2, 3]
    cfg.model.data_preprocessor = dict(own, mean=[4, 5, 6])
    assert plain_config(cfg).cfg.model.data_preprocessor.mean == [4, 5, 6]


def test_mmrazors_preprocessor_of_classifiers_computes_the_same_in_mmpretrain():
    cfg = recipe("mixed/dkd_r34_r18")
    theirs = build_classifier(cfg.model.data_preprocessor)
    ours = build_classifier(plain_config(cfg).cfg.model.data_preprocessor)
    image = torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8)
    expected, found = (each(dict(inputs=[image]))["inputs"] for each in (theirs, ours))
    assert torch.equal(expected, found) and found.std() < 10


def test_a_run_without_a_teacher_keeps_its_model():
    cfg = recipe("digits/plain")
    plain = plain_config(cfg).cfg
    assert plain.model == cfg.model and plain.optim_wrapper == cfg.optim_wrapper
    assert set(cfg.default_hooks) - set(plain.default_hooks) == {
        "exact_resume", "finite_loss", "student_export",
    }  # fmt: skip


def test_parts_of_ours_go_with_what_needs_them_and_are_named():
    cfg = recipe("cls/digits/kd")
    plain = plain_config(cfg)
    assert plain.left_out == [
        "train_dataloader, train_cfg, optim_wrapper (for kd_det.Digits)",
        "val_dataloader, val_cfg, val_evaluator (for kd_det.Digits)",
        "test_dataloader, test_cfg, test_evaluator (for kd_det.Digits)",
    ]
    assert not {"train_cfg", "param_scheduler", "test_evaluator"} & plain.cfg.keys()


def test_loops_parameter_names_and_imports_become_plain():
    cfg = recipe("digits/review_nd_kd")
    cfg.val_cfg = dict(_scope_="mmrazor", type="SingleTeacherDistillValLoop")
    cfg.custom_imports = dict(imports=["kd_det.losses", "my_backbones"])
    keys = {"distiller.connectors": dict(lr_mult=10), "architecture.backbone": dict(lr_mult=0.1)}
    cfg.optim_wrapper.paramwise_cfg = dict(custom_keys=keys, norm_decay_mult=0.0)
    cfg.visualizer = dict(type="kd_det.Visualizer")
    plain = plain_config(cfg)
    assert plain.left_out == ["visualizer (for kd_det.Visualizer)"]
    assert plain.cfg.val_cfg == dict(type="ValLoop")
    assert plain.cfg.custom_imports == dict(imports=["my_backbones"])
    assert plain.cfg.optim_wrapper.paramwise_cfg == dict(
        custom_keys={"backbone": dict(lr_mult=0.1)}, norm_decay_mult=0.0
    )


@pytest.mark.parametrize("change", [dict(default_scope="mmrazor"), dict(model=None)])
def test_what_is_no_config_of_a_run_is_told(change):
    cfg = recipe("digits/plain")
    cfg.update(change)
    with pytest.raises(ValueError, match="expected a config with a model and a default_scope"):
        plain_config(cfg)
