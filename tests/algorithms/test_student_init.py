"""The student starts from modules of its teacher, and nothing else of it changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from small import build, runner
from torch import nn

from kd_det.algorithms import WiringError, student_init

MODULES = ["neck", "rpn_head", "roi_head"]
# The neck's first convolutions, which read the backbone, are all whose shapes differ.
OWN = tuple(f"neck.lateral_convs.{level}.conv.weight" for level in range(4))


@pytest.fixture
def cfg(cfg: Any) -> Any:
    cfg.model.init_student_from_teacher = MODULES
    cfg.randomness = dict(seed=0)
    # Quick: no pre-pass, no validation.
    cfg.custom_hooks = []
    del cfg.model.distiller.distill_losses["loss_nd"]
    del cfg.model.distiller.loss_forward_mappings["loss_nd"]
    cfg.train_cfg.val_interval = 9
    return cfg


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


class Started(Exception):
    """Raised before the first step."""


class StopAtFirstStep(Hook):
    priority = "VERY_LOW"

    def before_train_iter(self, *_: Any, **__: Any) -> None:
        raise Started


def started(cfg: Any) -> Runner:
    """A Runner just before its first step."""
    run = runner(cfg)
    run.register_hook(StopAtFirstStep())
    with pytest.raises(Started):
        run.train()
    return run


def log_of(run: Runner) -> str:
    return (Path(run.log_dir) / f"{run.timestamp}.log").read_text()


def test_student_equals_the_teacher_there_before_the_first_step(cfg):
    run = started(cfg)
    student, teacher = weights(run.model.student), weights(run.model.teacher)
    cfg.model.init_student_from_teacher = None
    cfg.work_dir += "_alone"
    alone = weights(started(cfg).model.student)

    copied = {key for key in student if key.startswith(tuple(MODULES)) and key not in OWN}
    assert len(copied) == 26
    assert all(torch.equal(student[key], teacher[key]) for key in copied)
    assert not torch.equal(
        student["roi_head.bbox_head.fc_cls.weight"], alone["roi_head.bbox_head.fc_cls.weight"]
    )
    rest = student.keys() - copied
    assert len(rest) > 100 and set(OWN) <= rest
    assert all(torch.equal(student[key], alone[key]) for key in rest)

    lines = [line.split() for line in log_of(run).splitlines() if "copied" in line]
    assert sorted(line[0] for line in lines if line[-2] != "not") == sorted(copied)
    other = "neck.lateral_convs.3.conv.weight [64, 64, 1, 1] [64, 512, 1, 1] not copied"
    assert other in [" ".join(line) for line in lines]


def test_resumed_checkpoint_wins(cfg):
    run = runner(cfg)
    run.train()
    trained = weights(run.model.student)
    # Values were copied, not shared: the teacher did not learn.
    saved = torch.load(cfg.model.teacher_ckpt, weights_only=True)["state_dict"]
    teacher = weights(run.model.teacher)
    name = "roi_head.bbox_head.fc_cls.weight"
    assert all(torch.equal(teacher[key], saved[key]) for key in saved)
    assert not torch.equal(teacher[name], trained[name])

    run.model.init_weights()  # a second call would undo the training
    assert all(
        torch.equal(trained[key], value) for key, value in weights(run.model.student).items()
    )
    cfg.train_cfg.max_epochs = 2
    cfg.resume = True
    student = weights(started(cfg).model.student)
    assert all(torch.equal(student[key], trained[key]) for key in trained)


def test_buffers_are_copied(cfg):
    cfg.model.architecture.backbone.base_channels = 16
    cfg.model.architecture.backbone.stem_channels = 16
    cfg.model.architecture.neck.in_channels = [16, 32, 64, 128]
    cfg.model.init_student_from_teacher = ["backbone.bn1"]
    model = build(cfg.model)
    model.teacher.backbone.bn1.running_var.fill_(7)
    model.init_weights()
    assert (model.student.backbone.bn1.running_var == 7).all()
    assert not torch.equal(model.student.backbone.conv1.weight, model.teacher.backbone.conv1.weight)


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (["neck", "roi_heat"], r"names 'roi_heat', but the student FasterRCNN has no.*roi_head"),
        (
            ["rpn_head.rpn_class"],
            r"student.*no such module; it has .*rpn_head.loss_cls, rpn_head.rpn_cls",
        ),
        (["backbone.layer3.2"], r"'backbone.layer3.2', but the student.*backbone.layer3.1"),
        ([""], r"names '', but the student"),
        (
            ["backbone.layer2.0.conv1"],
            r"of its tensors.*layer2.0.conv1.weight +\[16, 8, 3, 3\] +\[32, 64, 1, 1\] +not copied",
        ),
        (["roi_head.bbox_roi_extractor"], r"'roi_head.bbox_roi_extractor'.* none of its tensors"),
        ("neck", r"expected a list of module names, found 'neck'"),
    ],
)
def test_name_that_leads_nowhere_is_an_error_at_build_time(cfg, modules: Any, message: str):
    cfg.model.init_student_from_teacher = modules
    with pytest.raises(WiringError, match=f"(?s)^init_student_from_teacher.*{message}"):
        build(cfg.model)


class Side(nn.Module):
    def __init__(self, **layers: nn.Module) -> None:
        super().__init__()
        self.head = nn.ModuleDict(layers)


def test_module_that_the_teacher_lacks_is_named():
    student = Side(cls=nn.Linear(2, 3), mask=nn.Linear(2, 3))
    teacher = Side(cls=nn.Linear(2, 3), iou=nn.Linear(2, 3))
    with pytest.raises(WiringError, match=r"'head.mask', but the teacher.*has.*head.iou"):
        student_init.plan(student, teacher, ["head.mask"])


def test_tensors_of_one_side_and_overlapping_names_are_listed_once():
    student = Side(cls=nn.Linear(2, 3), mask=nn.Linear(2, 3, bias=False))
    teacher = Side(cls=nn.Linear(2, 4), mask=nn.Linear(2, 3))
    rows = student_init.plan(student, teacher, ["head", "head.mask"])
    assert [line.split("  ") for line in _columns(student_init.format_table(rows))] == [
        ["tensor", "student", "teacher"],
        ["head.cls.weight", "[3, 2]", "[4, 2]", "not copied"],
        ["head.cls.bias", "[3]", "[4]", "not copied"],
        ["head.mask.weight", "[3, 2]", "[3, 2]", "copied"],
        ["head.mask.bias", "none", "[3]", "not copied"],
    ]
    before = student.head["cls"].weight.clone()
    student_init.copy(student, teacher.state_dict(), rows)
    assert torch.equal(student.head["mask"].weight, teacher.head["mask"].weight)
    assert torch.equal(student.head["cls"].weight, before)


def _columns(table: str) -> list[str]:
    import re

    return [re.sub(r" {2,}", "  ", line.strip()) for line in table.splitlines()]
