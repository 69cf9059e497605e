"""Distillation takes nothing of the student's training but what its losses add."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from small import digits_config, runner

from kd_det.algorithms.teacher import Teacher


def trained(cfg: Any) -> Any:
    cfg.randomness = dict(seed=7)
    cfg.custom_hooks = []
    cfg.train_dataloader.dataset.indices = 8
    cfg.train_cfg.val_interval = 9
    run = runner(cfg)
    run.train()
    return run


def test_with_weights_of_zero_the_student_trains_as_it_does_alone(
    digits: Path, teacher_ckpt: Path, tmp_path: Path
):
    """Bit for bit, from random weights: those of the student are drawn as if it were alone."""
    options = {"model.teacher_ckpt": str(teacher_ckpt)}
    cfg = digits_config("review_nd_kd", digits, tmp_path / "taught", **options)
    distiller = cfg.model.distiller
    for part in (distiller.distill_losses, distiller.loss_forward_mappings):
        del part["loss_nd"]  # asks for centers
    for loss in distiller.distill_losses.values():
        loss.loss_weight = 0.0
    # MMRazor initialises what it knows, such as this one.
    distiller.connectors.more = dict(
        type="mmrazor.ConvModuleConnector", in_channel=3, out_channel=5
    )
    taught = trained(cfg).model.student.state_dict()
    alone = trained(digits_config("plain", digits, tmp_path / "alone")).model.state_dict()
    assert taught.keys() == alone.keys()
    assert [key for key in alone if not torch.equal(alone[key], taught[key])] == []


@pytest.mark.parametrize(
    ("kind", "buffers"), [("ExponentialMovingAverage", False), ("ExpMomentumEMA", True)]
)
def test_an_average_of_weights_shares_the_teacher(
    digits: Path, teacher_ckpt: Path, tmp_path: Path, kind: str, buffers: bool
):
    options = {"model.teacher_ckpt": str(teacher_ckpt)}
    cfg = digits_config("review", digits, tmp_path / "run", **options)
    cfg.custom_hooks = [
        dict(type="EMAHook", ema_type=kind, update_buffers=buffers, momentum=0.3, priority=49)
    ]
    cfg.train_dataloader.dataset.indices = 8
    cfg.val_dataloader.dataset.indices = 4
    run = runner(cfg)
    before = copy.deepcopy(run.model.teacher.state_dict())
    run.train()
    (hook,) = [hook for hook in run.hooks if type(hook).__name__ == "EMAHook"]
    average = hook.ema_model.module
    assert average.teacher is run.model.teacher
    assert average.student is not run.model.student
    after = run.model.teacher.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    saved = torch.load(Path(cfg.work_dir) / "epoch_1.pth", weights_only=True)
    for state in (saved["state_dict"], saved["ema_state_dict"]):
        assert state and not [key for key in state if "teacher." in key]
    # What was evaluated is what is saved as the weights.
    name = "backbone.conv1.weight"
    assert torch.equal(saved["state_dict"][f"architecture.{name}"],
                       average.student.get_parameter(name))  # fmt: skip


def test_a_copy_on_another_device_leaves_the_teacher_where_it_is():
    teacher = Teacher(torch.nn.Linear(2, 2))
    shared = copy.deepcopy(teacher)
    assert shared.model is teacher.model
    shared.move(lambda x: x.to("meta"))
    assert teacher.device == torch.device("cpu")
    teacher.move(lambda x: x.to("meta"))
    assert teacher.device == torch.device("meta")
