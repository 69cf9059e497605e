"""Trainings by hand-written configs: all methods at once, class centers gathered beforehand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from dense_parts import cross_parts, kd_parts, ld_parts, nd_parts
from mmengine.config import Config
from mmengine.hooks import Hook
from small import digits_config, runner
from small_dense import CLASSES, config, detector, pair

from kd_det.centers import ClassCenters

NAME = {"gfl": "bbox_head.gfl_cls", "rtmdet": "bbox_head.rtm_cls.0, "}


class Watch(Hook):
    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.seen.append({name: torch.as_tensor(value).item() for name, value in outputs.items()})


def merged(*methods: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for parts in methods:
        for part, entries in parts.items():
            found[part] = {**found.get(part, {}), **entries}
    return found


def recipe(name: str, data: Path, folder: Path) -> Config:
    parts = [kd_parts(name), cross_parts(name, 1), nd_parts(name)]
    parts += [ld_parts()] if name == "gfl" else []
    teacher_ckpt = folder / "teacher.pth"
    torch.save({"state_dict": detector(name, 1).state_dict()}, teacher_ckpt)
    cfg = digits_config("plain", data, folder / "run")
    cfg.model = dict(
        type="kd_det.TeacherDistill",
        distiller=dict(type="mmrazor.ConfigurableDistiller", **merged(*parts)),
        architecture=config(name),
        teacher=config(name),
        teacher_ckpt=str(teacher_ckpt),
    )
    cfg.custom_hooks = [
        dict(type="kd_det.ClassCenterHook"),
        dict(type="kd_det.EmbeddingMonitorHook", interval=1),
    ]
    cfg.train_dataloader.dataset.indices = 8
    return cfg


@pytest.mark.parametrize("name", ["gfl", "rtmdet"])
def test_a_config_trains_with_every_method(name, digits, tmp_path):
    cfg = recipe(name, digits, tmp_path)
    watch = Watch()
    training = runner(cfg)
    training.register_hook(watch)
    training.train()
    assert len(watch.seen) == 2
    losses = {key for key in watch.seen[0] if key.startswith("distill.")}
    expected = {"kd", "boxes", "cls", "box", "nd", *(["ld"] if name == "gfl" else [])}
    assert losses == {f"distill.loss_{loss}" for loss in expected}
    assert all(0 < step[loss] < 1e4 for step in watch.seen for loss in losses)
    centers = ClassCenters.load(tmp_path / "run" / "class_centers.safetensors")
    assert centers.counts.shape == (CLASSES,)
    assert centers.counts.sum() > 20
    assert centers.metadata["embedding"].endswith("the teacher's positives")
    scalars = training.message_hub.log_scalars
    assert scalars["train/distill_monitor/nd/teacher_cosine"].current() > 0
    # The student alone, in plain mmdet's names.
    checkpoint = torch.load(tmp_path / "run" / "epoch_1.pth", weights_only=False)
    found = {key.split(".")[0] for key in checkpoint["state_dict"]}
    assert found == {"architecture", "distiller"}
    # The next run reads the centers instead of gathering them.
    cfg.work_dir = str(tmp_path / "run")
    again = runner(cfg)
    hook = next(x for x in again.hooks if type(x).__name__ == "ClassCenterHook")
    hook.collect = None
    hook.before_train(again)
    assert torch.equal(
        again.model.distiller.distill_losses["loss_nd"].centers, centers.means.float()
    )


def test_modules_that_a_forward_pass_adds_are_not_there_before_training():
    """As DDQ's decoder gets those of its head, which an optimizer would find twice."""
    student = detector("gfl")
    student.neck.register_forward_hook(lambda neck, *_: setattr(neck, "more", student.backbone))
    neck = dict(fpn=dict(type="ModuleOutputs", source="neck"))
    mapping = dict(
        preds_S=dict(recorder="fpn", from_student=True, data_idx=0),
        preds_T=dict(recorder="fpn", from_student=False, data_idx=0),
    )
    parts = dict(
        student_recorders=neck,
        teacher_recorders=neck,
        distill_losses=dict(loss_pkd=dict(type="mmrazor.PKDLoss")),
        loss_forward_mappings=dict(loss_pkd=mapping),
    )
    model = pair(student, detector("gfl"), parts)
    assert not hasattr(model.student.neck, "more")
