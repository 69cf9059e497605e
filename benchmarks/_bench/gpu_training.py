"""Trainings to the end on a folder of photographs: the teacher, a student it teaches, one alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from _bench.report import Row
from kd_det.pairing.compose import pair

METRIC = "coco/bbox_mAP"
METHOD = "review_nd"
# Real depths, from random weights: no download. Batch norms are trained, and nothing is frozen.
SIDE = """_base_ = ["mmdet::_base_/models/faster-rcnn_r50_fpn.py", "kd_det::_base_/coco_1x.py"]
model = dict(
    backbone=dict(depth={depth}, init_cfg=None, frozen_stages=-1, norm_eval=False),
    neck=dict(in_channels={channels}),
)
"""
CHANNELS = {18: [64, 128, 256, 512], 50: [256, 512, 1024, 2048], 101: [256, 512, 1024, 2048]}
# Pixels that images are fitted into; the photographs are small.
SCALE = (640, 384)
BATCH = 16


def measure(
    data: Path,
    root: Path,
    depth: int,
    epochs: int,
    device: torch.device,
    dry_run: bool,
    left: Callable[[list[Row]], None],
) -> None:
    """Train teacher, taught student and student alone, each for ``epochs``.

    Args:
        data: COCO folder.
        root: Folder of the runs.
        depth: Of the teacher's ResNet, 50 or 101.
        epochs: Of each training.
        device: Where they run.
        dry_run: Whether the digits' detectors take the place of the real ones.
        left: Is called with all rows so far after each training.
    """
    teacher, student = _configs(root, depth, dry_run)
    rows: list[Row] = []

    def train(name: str, cfg: Config) -> str:
        _adapt(cfg, root / name, epochs, device, dry_run)
        run = Runner.from_cfg(cfg)
        start = time.perf_counter()
        run.train()
        seconds = time.perf_counter() - start
        map_ = run.message_hub.get_scalar(f"val/{METRIC}").current()
        rows.extend([Row("training", name, "mAP", float(map_), ""),
                     Row("training", name, "time", seconds, "s")])  # fmt: skip
        left(rows)
        return str(root / name / f"epoch_{epochs}.pth")

    of_teacher = pair(teacher, teacher, METHOD, data=str(data), work_dir=str(root / "data"))
    weights = train(f"teacher R{depth}", of_teacher.alone)
    both = pair(student, teacher, METHOD, weights, str(data), str(root / "data"))
    train(f"R18, {METHOD}", both.cfg)
    train("R18 alone", both.alone)


def _configs(root: Path, depth: int, dry_run: bool) -> tuple[str, str]:
    """Config files of teacher and student."""
    if dry_run:
        return "kd_det::digits/teacher.py", "kd_det::digits/plain.py"
    paths = []
    for each in (depth, 18):
        path = root / f"r{each}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SIDE.format(depth=each, channels=CHANNELS[each]))
        paths.append(str(path))
    return paths[0], paths[1]


def _adapt(cfg: Config, folder: Path, epochs: int, device: torch.device, dry_run: bool) -> None:
    """Set length, batch and precision; one schedule for all three."""
    cfg.work_dir = str(folder)
    cfg.experiment_name = folder.name.replace(" ", "_")
    cfg.train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=epochs, val_interval=epochs)
    cfg.default_hooks.checkpoint = dict(type="CheckpointHook", interval=epochs)
    # A teacher from random weights, in minutes: whatever it reaches, it teaches.
    cfg.default_hooks.pop("teacher_accuracy", None)
    cfg.auto_scale_lr = dict(enable=False, base_batch_size=BATCH)
    for part in ("train", "val", "test"):
        loader = cfg[f"{part}_dataloader"]
        workers = 0 if dry_run else 8
        loader.update(batch_size=2 if dry_run else BATCH, num_workers=workers,
                      persistent_workers=workers > 0)  # fmt: skip
        if dry_run:
            loader.dataset.indices = 4
        else:
            _resize(loader.dataset)
    wrapper: dict[str, Any] = dict(
        type="OptimWrapper",
        optimizer=dict(type="AdamW", lr=4e-4, weight_decay=0.05),
        clip_grad=dict(max_norm=10.0),
    )
    if "constructor" in cfg.optim_wrapper:  # which gives the student the groups that it has alone
        wrapper["constructor"] = cfg.optim_wrapper.constructor
    if device.type == "cuda":
        wrapper.update(type="AmpOptimWrapper", dtype="bfloat16")
    cfg.optim_wrapper = wrapper
    cosine = dict(type="CosineAnnealingLR", T_max=epochs, eta_min=4e-6, convert_to_iter_based=True)
    cfg.param_scheduler = [
        dict(type="LinearLR", start_factor=0.01, by_epoch=False, end=100),
        cosine,
    ]


def _resize(dataset: Any) -> None:
    while "dataset" in dataset:
        dataset = dataset.dataset
    dataset.pipeline = [
        dict(type="Resize", scale=SCALE, keep_ratio=True) if "Resize" in each["type"] else each
        for each in dataset.pipeline
    ]
