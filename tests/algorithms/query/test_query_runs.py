"""A training by a Runner: class centers beforehand, two iterations, no teacher in checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from small import digits_config, runner
from small_query import CLASSES, config, detector

from kd_det.algorithms.probes import query
from kd_det.centers import ClassCenters
from kd_det.shipped import find_configs
from kd_det.timing import StepTimer


class Watch(Hook):
    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.seen.append({name: torch.as_tensor(value).item() for name, value in outputs.items()})


def recipe(data: Path, folder: Path) -> Config:
    """The method's own file, on a shrunk pair."""
    method = Config.fromfile(find_configs() / "_base_" / "methods_query" / "kd_nd.py")
    teacher_ckpt = folder / "teacher.pth"
    torch.save({"state_dict": detector("dino", 1).state_dict()}, teacher_ckpt)
    cfg = digits_config("plain", data, folder / "run")
    distiller = method.model.distiller
    for side in ("student", "teacher"):
        recorders = distiller[f"{side}_recorders"]
        for name in ("fpn", "embedding", "logits", "targets"):
            recorders.pop(name, None)
        recorders.drawn_queries.random = 5
    distiller.distill_losses.loss_nd.num_classes = CLASSES
    cfg.model = dict(
        type="kd_det.TeacherDistill",
        distiller=distiller,
        architecture=config("dino"),
        teacher=config("dino"),
        teacher_ckpt=str(teacher_ckpt),
    )
    cfg.custom_hooks = [
        dict(type="kd_det.ClassCenterHook"),
        dict(type="kd_det.EmbeddingMonitorHook", interval=1),
    ]
    cfg.train_dataloader.dataset.indices = 8
    return cfg


def test_a_config_trains_with_every_loss(digits, tmp_path, monkeypatch):
    drawn: list[torch.Tensor] = []
    draw = query.query.draw

    def spy(*args: Any) -> Any:
        found = draw(*args)
        drawn.append(found["reference_points"])
        return found

    monkeypatch.setattr(query.query, "draw", spy)
    timed: list[str] = []
    part = StepTimer.part
    monkeypatch.setattr(
        StepTimer, "part", lambda self, name: timed.append(name) or part(self, name)
    )
    training = runner(recipe(digits, tmp_path))
    watch = Watch()
    training.register_hook(watch)
    training.train()
    assert len(watch.seen) == 2
    names = {f"distill.loss_{x}" for x in ("kd", "boxes", "kd_drawn", "boxes_drawn", "nd")}
    assert {key for key in watch.seen[0] if key.startswith("distill.")} == names
    assert all(0 < step[loss] < 1e4 for step in watch.seen for loss in names)
    assert timed.count("student") == 4  # its own step, and its decoder on shared queries
    # Others in each iteration.
    assert [len(x) for x in drawn[-2:]] == [4, 4]
    assert not torch.equal(*drawn[-2:])
    centers = ClassCenters.load(tmp_path / "run" / "class_centers.safetensors")
    assert centers.counts.sum() > 8
    assert centers.metadata["embedding"].endswith("the teacher's matched queries")
    scalars = training.message_hub.log_scalars
    assert scalars["train/distill_monitor/nd/teacher_cosine"].current() > 0
    checkpoint = torch.load(tmp_path / "run" / "epoch_1.pth", weights_only=False)
    assert {key.split(".")[0] for key in checkpoint["state_dict"]} == {"architecture", "distiller"}
