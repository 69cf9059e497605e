"""The distilled training is the student's own with a teacher added, and nothing else."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config
from small import ROOT, build
from zoo import FASTER, STUDENTS, write

from kd_det.pairing.compose import Pairing, pair

PLAIN, TEACHER = (str(ROOT / "configs" / "digits" / f"{name}.py") for name in ("plain", "teacher"))
# What a student's config may say beside model, data and schedule.
RUNTIME = dict(
    default_hooks=dict(
        checkpoint=dict(type="CheckpointHook", interval=1, save_best="coco/bbox_mAP_50"),
        early=dict(type="EarlyStoppingHook", monitor="coco/bbox_mAP"),
        logger=dict(type="LoggerHook", interval=7),
        finite_loss=dict(type="kd_det.FiniteLossHook", policy="skip"),
    ),
    custom_hooks=[
        dict(type="EMAHook", momentum=0.1),
        dict(type="mmdet.PipelineSwitchHook", switch_epoch=11, switch_pipeline=[]),
    ],
    visualizer=dict(
        type="DetLocalVisualizer",
        vis_backends=[dict(type="LocalVisBackend"), dict(type="TensorboardVisBackend")],
    ),
    env_cfg=dict(cudnn_benchmark=True, dist_cfg=dict(backend="gloo")),
    log_processor=dict(type="LogProcessor", window_size=3),
    randomness=dict(seed=42, deterministic=True),
    tta_model=dict(type="DetTTAModel"),
    find_unused_parameters=True,
    auto_scale_lr=dict(enable=False, base_batch_size=16),
    optim_wrapper=dict(
        type="OptimWrapper",
        optimizer=dict(type="AdamW", lr=0.5),
        paramwise_cfg=dict(custom_keys={"backbone": dict(lr_mult=0.1)}),
    ),
    activation_checkpointing=["backbone"],
    my_option=3,
)


def with_runtime(path, **more: object) -> str:
    name = write(path, **STUDENTS["narrow"])
    with open(name, "a") as file:
        file.writelines(f"{key} = {value!r}\n" for key, value in {**RUNTIME, **more}.items())
    return name


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Pairing:
    student = with_runtime(tmp_path_factory.mktemp("alone") / "s.py")
    return pair(student, FASTER, "review_nd", cfg_options={"train_dataloader.batch_size": 3})


def test_all_that_the_students_config_says_is_kept(made):
    cfg = made.cfg.to_dict()
    own = Config.fromfile(made.student.name).to_dict()
    for key in own:
        if key in ("model", "load_from", "resume"):
            continue
        if key == "default_hooks":
            assert own[key].items() <= cfg[key].items()
        elif key == "custom_hooks":
            assert cfg[key][:2] == own[key]
        elif key == "train_dataloader":
            assert cfg[key] == dict(own[key], batch_size=3)
        elif key not in ("optim_wrapper", "activation_checkpointing"):
            assert cfg[key] == own[key], key
    assert cfg["optim_wrapper"] == dict(
        own["optim_wrapper"], constructor="kd_det.DistillOptimWrapperConstructor"
    )
    assert cfg["activation_checkpointing"] == ["architecture.backbone"]
    assert "hooks of the student's config are kept: EMAHook, PipelineSwitchHook" in made.decisions


def test_the_two_trainings_differ_in_nothing_but_the_teacher(made):
    cfg, alone = made.cfg.to_dict(), made.alone.to_dict()
    assert cfg["model"]["architecture"] == alone.pop("model")
    assert cfg["default_hooks"].pop("teacher_accuracy")
    of_method = [hook for hook in cfg["custom_hooks"] if hook not in alone["custom_hooks"]]
    assert [hook["type"] for hook in of_method] == [
        "kd_det.ClassCenterHook", "kd_det.EmbeddingMonitorHook",
    ]  # fmt: skip
    del cfg["optim_wrapper"]["constructor"]
    other = {key for key, value in alone.items() if cfg.get(key) != value}
    assert other == {"custom_hooks", "activation_checkpointing", "work_dir"}
    assert alone["work_dir"] == f"{cfg['work_dir']}_alone"


def test_options_of_the_student_reach_both():
    cfg_options = {
        "model.architecture.backbone.frozen_stages": 2,
        "model.distiller.distill_losses.loss_kd.loss_weight": 2.0,
        "optim_wrapper.optimizer.lr": 0.25,
        "default_hooks.teacher_accuracy.floor": 0.5,
        "default_hooks.finite_loss": None,
    }
    made = pair(PLAIN, TEACHER, "kd", cfg_options=cfg_options)
    assert made.cfg.model.architecture == made.alone.model
    assert made.alone.model.backbone.frozen_stages == 2
    assert made.alone.optim_wrapper.optimizer.lr == made.cfg.optim_wrapper.optimizer.lr == 0.25
    assert made.cfg.default_hooks.teacher_accuracy.floor == 0.5
    assert "teacher_accuracy" not in made.alone.default_hooks
    for cfg in (made.cfg, made.alone):
        assert "finite_loss" not in cfg.default_hooks and "exact_resume" in cfg.default_hooks


@pytest.mark.parametrize(
    ("lacking", "said", "rate"),
    [
        ((), "schedule: the student's own", 0.02),
        (("optim_wrapper",), "has no optim_wrapper: kd_det's for COCO is taken", 0.01),
        (("train_cfg",), "has no train_cfg: kd_det's for COCO is taken", 0.02),
        (("train_cfg", "optim_wrapper"), "schedule: kd_det's 1x for COCO, since", 0.01),
    ],
)
def test_what_the_config_lacks_is_added_and_said(tmp_path, lacking, said, rate):
    path = write(tmp_path / "s.py", **STUDENTS["narrow"])
    with open(path, "a") as file:
        file.writelines(f"{key} = None\n" for key in lacking)
    made = pair(path, FASTER, "kd", epochs=6)
    decided = "\n".join(made.decisions)
    for each in (said, "randomness.seed is 0, since", "checkpoint.save_best coco/bbox_mAP"):
        assert each in decided
    assert made.alone.randomness.seed == 0
    assert made.alone.default_hooks.checkpoint.save_best == "coco/bbox_mAP"
    assert made.cfg.train_cfg.max_epochs == 6
    assert made.cfg.optim_wrapper.optimizer.lr == rate
    assert made.cfg.auto_scale_lr.enable == (rate == 0.01)


def test_what_wants_a_detector_gets_the_student_or_is_left_out(tmp_path):
    optimizer = dict(
        type="OptimWrapper",
        optimizer=dict(type="AdamW", lr=1.0, weight_decay=0.5),
        constructor="LearningRateDecayOptimizerConstructor",
        paramwise_cfg=dict(decay_rate=0.7, decay_type="layer_wise", num_layers=6),
    )
    hooks = [dict(type="mmdet.MeanTeacherHook")]
    path = with_runtime(tmp_path / "s.py", optim_wrapper=optimizer, custom_hooks=hooks)
    made = pair(path, FASTER, "kd")
    assert made.cfg.optim_wrapper.student_constructor == optimizer["constructor"]
    assert made.alone.optim_wrapper.constructor == optimizer["constructor"]
    assert made.alone.optim_wrapper.paramwise_cfg == optimizer["paramwise_cfg"]
    assert made.cfg.custom_hooks == made.alone.custom_hooks == []
    said = "MeanTeacherHook of the student's config is left out: it averages"
    assert said in "\n".join(made.decisions)


NEW_STYLE = """from mmdet.models import FasterRCNN
from mmengine.config import read_base
from mmengine.hooks import EMAHook
from mmengine.model.weight_init import PretrainedInit
from mmengine.optim import LinearLR

with read_base():
    from .old import *

model.update(type=FasterRCNN)
model["backbone"].update(init_cfg=dict(type=PretrainedInit, checkpoint="torchvision://resnet18"))
param_scheduler = [dict(type=LinearLR, start_factor=0.001, by_epoch=False, begin=0, end=500)]
custom_hooks = [dict(type=EMAHook)]
"""


def test_a_config_in_the_new_style_is_kept_too(tmp_path, digits):
    plain = without_scopes(Config.fromfile(PLAIN).to_dict())
    lines = [f"{key} = {value!r}\n" for key, value in plain.items() if key != "default_scope"]
    (tmp_path / "old.py").write_text("".join(lines))
    (tmp_path / "new.py").write_text(NEW_STYLE)
    made = pair(str(tmp_path / "new.py"), TEACHER, "kd", data=str(digits), epochs=1)
    assert made.cfg.param_scheduler[0].end == 2  # six iterations in all
    assert "hooks of the student's config are kept: EMAHook" in made.decisions
    assert "torchvision://resnet18" in made.describe()
    made.write(tmp_path / "config" / "distill.py")
    build(Config.fromfile(tmp_path / "config" / "alone.py").model)


def without_scopes(value: object) -> object:
    """A config's value as somebody writes it in one file."""
    if isinstance(value, dict):
        return {key: without_scopes(each) for key, each in value.items() if key != "_scope_"}
    return [*map(without_scopes, value)] if isinstance(value, list) else value


def test_a_student_that_loads_weights_does_so_alone_too(tmp_path, digits):
    state = build(Config.fromfile(PLAIN).model).state_dict()
    torch.save(dict(model=state), tmp_path / "start.pth")
    path = tmp_path / "s.py"
    path.write_text(f"_base_ = {PLAIN!r}\nload_from = {str(tmp_path / 'start.pth')!r}\n")
    made = pair(str(path), TEACHER, "kd", data=str(digits))
    for cfg in (made.cfg, made.alone):
        assert cfg.load_from is None
    assert made.alone.model.init_cfg == made.cfg.model.architecture.init_cfg
    assert made.alone.custom_imports.imports == ["kd_det.algorithms.checkpoint"]
    assert str(tmp_path / "start.pth") in made.describe()
