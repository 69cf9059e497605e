"""Configs of students: what stays, what goes, and what is said about it."""

from __future__ import annotations

from collections import namedtuple

import pytest
import torch
from mmengine.config import Config
from small import ROOT, build
from small_cls import build_classifier

from kd_det.export.plain_config import _renamed, _without_pretrained, plain_config
from kd_det.recipes import load_named

CONFIGS = ROOT / "configs"
# One of each kind of detector, student, data and algorithm, and what its student needs of ours.
RECIPES = {
    "digits/teacher": [],
    "digits/review_nd_kd": [],
    "frcnn_r101_r18_review_nd": [],
    "frcnn_r50_mv2_dkd_nd": [],
    "mrcnn_r101_r50_review_nd": [],
    "cascade_r101_r50_kd_nd": [],
    "retinanet_r101_r50_review": [],
    "rtmdet_l_s_cwd": [],
    "dino_r50_r18_robust": [],
    "mixed/pkd_frcnn_r101_r50": [],
    "mixed/dkd_r34_r18": [],
    "cls/digits/review_nd": ["kd_det"],
    "cls/cifar100_r56_r20_kd_nd": ["kd_det"],
    "cls/imagenet_r34_r18_kd_nd": [],
    "cls/imagenet_regnety160_deitb_kd_nd": ["mmrazor"],
}


def recipe(name: str) -> Config:
    cfg = load_named(CONFIGS / f"{name}.py")
    object.__setattr__(cfg, "_format_python_code", False)
    return cfg


@pytest.mark.parametrize("name", RECIPES)
def test_every_student_is_built_offline_with_the_same_weights(name, offline):
    cfg = recipe(name)
    plain = plain_config(cfg)
    assert plain.requires == RECIPES[name]
    if not plain.requires:
        assert not any(word in plain.text for word in ("kd_det.", "mmrazor", "mmcls"))
    assert not any(word in plain.text for word in ("Pretrained", "distiller", "teacher"))
    assert plain.cfg.default_scope in ("mmdet", "mmpretrain")
    if "cls/digits" not in name:
        assert {"train_cfg", "val_evaluator", "test_dataloader"} <= plain.cfg.keys()

    alone = (build if plain.cfg.default_scope == "mmdet" else build_classifier)(plain.cfg.model)
    model = cfg.model.get("architecture", cfg.model)
    student = build_classifier(model, plain.cfg.default_scope)
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
        "exact_resume", "finite_loss", "step_time", "student_export",
    }  # fmt: skip


def test_parts_of_ours_go_with_what_needs_them_and_are_named():
    plain = plain_config(recipe("cls/digits/kd"))
    assert plain.left_out[0] == "train_dataloader, train_cfg, optim_wrapper (for kd_det.Digits)"
    assert len(plain.left_out) == 3
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


def test_a_constructor_that_wants_a_detector_is_given_back():
    cfg = recipe("digits/review_nd_kd")
    layers = dict(decay_rate=0.7, decay_type="layer_wise", num_layers=6)
    cfg.optim_wrapper.update(
        constructor="kd_det.DistillOptimWrapperConstructor",
        student_constructor="LearningRateDecayOptimizerConstructor",
        paramwise_cfg=layers,
    )
    found = plain_config(cfg).cfg.optim_wrapper
    assert found.constructor == "LearningRateDecayOptimizerConstructor"
    assert found.paramwise_cfg == layers and "student_constructor" not in found


@pytest.mark.parametrize("kind", ["Pretrained", "mmengine.model.weight_init.PretrainedInit"])
def test_weights_to_start_from_are_left_out(kind):
    cfg = recipe("digits/plain")
    cfg.model.backbone.init_cfg = [dict(type=kind, checkpoint="torchvision://resnet18")]
    assert "init_cfg" not in plain_config(cfg).cfg.model.backbone


def test_named_tuples_are_understood():
    size = namedtuple("Size", "height width")(1, dict(pretrained=True))
    assert _without_pretrained(dict(size=size)) == dict(size=(1, {}))
    assert _renamed([size]) == [size]


@pytest.mark.parametrize("change", [dict(default_scope="mmrazor"), dict(model=None)])
def test_what_is_no_config_of_a_run_is_told(change):
    cfg = recipe("digits/plain")
    cfg.update(change)
    with pytest.raises(ValueError, match="expected a config with a model and a default_scope"):
        plain_config(cfg)
