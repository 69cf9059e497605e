"""Optimizer, schedule and hooks of a pair: the student's own, brought to a length."""

from __future__ import annotations

import copy
import math
from typing import Any

from kd_det.errors import InvalidInputError
from kd_det.pairing.data import Data

# Warm-up takes at most this part of training: mmdet's 500 iterations may be all of a small set's.
WARM_UP = 0.1
# What says how many epochs something takes.
LENGTHS = ("begin", "end", "T_max", "milestones", "step_size", "total_steps")


def set_schedule(
    cfg: dict[str, Any], student: dict[str, Any], data: Data, epochs: int | None
) -> list[str]:
    """Give ``cfg`` the student's optimizer and schedule, where it has them by epochs.

    Args:
        cfg: The config, with a schedule of COCO and the data; changed in place.
        student: The student's config.
        data: The data, whose size bounds the warm-up.
        epochs: The length; None keeps the schedule's own.

    Returns:
        What was decided, in sentences.

    Raises:
        ValueError: If ``epochs`` is below 1.
    """
    if epochs is not None and epochs < 1:
        raise InvalidInputError(f"expected epochs >= 1, found {epochs}")
    decisions = []
    loop = student.get("train_cfg") or {}
    owner = "kd_det's 1x for COCO"
    if loop.get("max_epochs") and student.get("optim_wrapper"):
        owner = "the student's own"
        for key in ("train_cfg", "param_scheduler", "optim_wrapper", "val_cfg", "test_cfg"):
            if student.get(key) is not None:
                cfg[key] = copy.deepcopy(student[key])
        own = student.get("auto_scale_lr")
        cfg["auto_scale_lr"] = dict(own, enable=True) if own else dict(enable=False)
    elif loop:
        decisions.append("the student's config trains by iterations, its schedule is left out")
    length = cfg["train_cfg"]["max_epochs"]
    if epochs is not None:
        _scale(cfg, epochs, length)
    _shorten_warm_up(cfg, data, decisions)
    decisions.insert(0, _described(cfg, owner))
    if student.get("custom_hooks"):
        types = ", ".join(str(hook.get("type")) for hook in student["custom_hooks"])
        decisions.append(f"hooks of the student's config are left out: {types}")
    return decisions


def _schedulers(cfg: dict[str, Any]) -> list[dict[str, Any]]:
    found = cfg.get("param_scheduler") or []
    return found if isinstance(found, list) else [found]


def _scale(cfg: dict[str, Any], epochs: int, length: int) -> None:
    """Bring loop and schedulers from ``length`` to ``epochs``."""
    cfg["train_cfg"]["max_epochs"] = epochs
    interval = cfg["train_cfg"].get("val_interval", 1)
    cfg["train_cfg"]["val_interval"] = min(interval, epochs)
    for scheduler in _schedulers(cfg):
        if not scheduler.get("by_epoch", True):
            continue
        for key in LENGTHS:
            value = scheduler.get(key)
            if isinstance(value, int):
                scheduler[key] = _scaled(value, epochs, length)
            elif isinstance(value, (list, tuple)):
                scheduler[key] = [_scaled(each, epochs, length) for each in value]


def _scaled(value: int, epochs: int, length: int) -> int:
    return max(1, round(value * epochs / length)) if value else 0


def _shorten_warm_up(cfg: dict[str, Any], data: Data, decisions: list[str]) -> None:
    if data.images is None:
        return
    per_epoch = math.ceil(data.images / cfg["train_dataloader"].get("batch_size", 1))
    most = max(1, int(WARM_UP * per_epoch * cfg["train_cfg"]["max_epochs"]))
    for scheduler in _schedulers(cfg):
        is_warm_up = scheduler.get("type") in ("LinearLR", "ConstantLR")
        if is_warm_up and not scheduler.get("by_epoch", True) and scheduler.get("end", 0) > most:
            decisions.append(
                f"warm-up of {scheduler['end']} iterations shortened to {most}, a tenth of training"
            )
            scheduler["end"] = most


def _described(cfg: dict[str, Any], owner: str) -> str:
    optimizer = cfg["optim_wrapper"]["optimizer"]
    scaling = cfg["auto_scale_lr"]
    rate = f"{optimizer.get('type')} with learning rate {optimizer.get('lr')}"
    if scaling.get("enable"):
        rate += f" for a batch of {scaling['base_batch_size']}, scaled to that of the run"
    epochs = cfg["train_cfg"]["max_epochs"]
    return f"schedule: {owner}, {epochs} epoch{'s' if epochs > 1 else ''}, {rate}"
