"""The length of a training: loop, schedulers and hooks, brought to another number of epochs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from kd_det.errors import InvalidInputError
from kd_det.pairing.schedulers import (
    INF,
    Length,
    is_warm_up,
    list_schedulers,
    scale,
    scale_schedulers,
)
from kd_det.registry import type_name

# Settings of hooks that count epochs, and iterations.
HOOK_EPOCHS = ("switch_epoch", "num_last_epochs", "begin_epoch")
HOOK_ITERATIONS = ("begin_iter",)


def set_length(
    cfg: dict[str, Any],
    epochs: int | None,
    images: int | None = None,
    same_data: bool = True,
    own_batch: int | None = None,
) -> list[str]:
    """Bring a recipe to a length, and its warm-up to what fits into it.

    Loop, evaluation intervals, schedulers, and hooks that act at an epoch are scaled together.

    Args:
        cfg: A student's whole config with the data of the run; changed in place.
        epochs: The length; None keeps the recipe's own.
        images: Training images of an epoch; None where that is not known.
        same_data: Whether the recipe was made for the data that are in ``cfg``.
        own_batch: The batch size for which it was made, where ``cfg`` has another.

    Returns:
        What was decided; the length and the optimizer first.

    Raises:
        kd_det.errors.InvalidInputError: If ``epochs`` is below 1, or if the loop counts
            iterations and their number in an epoch is unknown.
    """
    if epochs is not None and epochs < 1:
        raise InvalidInputError(f"expected epochs >= 1, found {epochs}")
    batch = (cfg.get("train_dataloader") or {}).get("batch_size", 1)
    per_epoch = None if images is None else max(1, math.ceil(images / batch))
    length = _length(cfg, epochs, per_epoch)
    if length is None:  # a loop of the student's own
        return [_described(cfg)]
    if length.unit == "epochs":
        more = (own_batch or batch) / batch
        length.iterations = _iterations_factor(cfg, length, length.epochs * more, same_data)
    decisions: list[str] = []
    if length.epochs != 1:
        _scale_loop(cfg, length)
        _scale_hooks(cfg, length, decisions)
    decisions += scale_schedulers(cfg, length)
    return [_described(cfg), *decisions]


def _length(cfg: dict[str, Any], epochs: int | None, per_epoch: int | None) -> Length | None:
    """The length now; the loop in ``cfg`` still has the old one."""
    loop = cfg["train_cfg"]
    if loop.get("max_epochs"):
        old = loop["max_epochs"]
        new = epochs or old
        return Length("epochs", new, new / old, per_epoch=per_epoch)
    old = loop.get("max_iters")
    if not old and epochs is None:
        return None
    if not old:
        raise InvalidInputError(
            f"the student's train_cfg of type {loop.get('type')} has neither max_epochs nor "
            "max_iters, so its length cannot be changed; leave --epochs out"
        )
    if epochs is None:
        return Length("iterations", old, per_epoch=per_epoch)
    if per_epoch is None:
        raise InvalidInputError(
            "the student trains by iterations, and their number in an epoch is unknown, since "
            "the images were not counted; leave --epochs out and set train_cfg.max_iters"
        )
    new = epochs * per_epoch
    return Length("iterations", new, new / old, new / old, per_epoch)


def _iterations_factor(
    cfg: dict[str, Any], length: Length, factor: float, same_data: bool
) -> float | None:
    """Factor for counts of iterations in a loop that counts epochs; None if it is unknown."""
    if same_data:
        return factor
    made_for = [
        end
        for scheduler in list_schedulers(cfg)
        if not scheduler.get("by_epoch", True) and not is_warm_up(scheduler)
        for end in (
            scheduler.get("end", INF),
            scheduler.get("begin", 0) + scheduler.get("T_max", INF),
            scheduler.get("total_steps", INF),
        )
        if end < INF
    ]
    if not made_for or length.total is None:
        return None
    return length.total / max(made_for)


def _scale_loop(cfg: dict[str, Any], length: Length) -> None:
    loop = cfg["train_cfg"]
    loop["max_epochs" if length.unit == "epochs" else "max_iters"] = length.new
    interval = loop.get("val_interval", 1 if length.unit == "epochs" else 1000)
    loop["val_interval"] = _interval(interval, length)
    if "val_begin" in loop:
        loop["val_begin"] = scale(loop["val_begin"], length.epochs)
    if loop.get("dynamic_intervals"):
        loop["dynamic_intervals"] = [
            (scale(begin, length.epochs), _interval(each, length))
            for begin, each in loop["dynamic_intervals"]
        ]


def _interval(value: int, length: Length) -> int:
    """The interval of evaluations or checkpoints; by epoch, it stays unless training is shorter."""
    brought = value if length.unit == "epochs" else scale(value, length.epochs)
    return min(brought, length.new)


def _scale_hooks(cfg: dict[str, Any], length: Length, decisions: list[str]) -> None:
    for hook in list_hooks(cfg):
        changes = [(key, length.epochs) for key in HOOK_EPOCHS]
        if length.iterations is not None:
            changes += [(key, length.iterations) for key in HOOK_ITERATIONS]
        if type_name(hook) == "CheckpointHook":
            counts_loop = hook.get("by_epoch", True) == (length.unit == "epochs")
            if counts_loop and hook.get("interval", -1) > 0:
                hook["interval"] = _interval(hook["interval"], length)
            changes += [("save_begin", length.epochs)] if counts_loop else []
        for key, factor in changes:
            if hook.get(key):
                old, hook[key] = hook[key], scale(hook[key], factor)
                if key == "switch_epoch":  # what comes then is not to be lost to rounding
                    hook[key] = max(1, min(hook[key], length.new - 1))
                decisions.append(f"{type_name(hook)}: {key} {old} becomes {hook[key]}")


def list_hooks(cfg: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The config's hooks, default and custom ones."""
    named = (cfg.get("default_hooks") or {}).values()
    yield from (hook for hook in (*named, *(cfg.get("custom_hooks") or ())) if hook)


def _described(cfg: dict[str, Any]) -> str:
    """Length and learning rate."""
    loop = cfg["train_cfg"]
    key = "max_epochs" if loop.get("max_epochs") else "max_iters"
    unit = "epoch" if key == "max_epochs" else "iteration"
    number = loop.get(key)
    text = f"{number} {unit}{'' if number == 1 else 's'}" if number else f"that of {loop['type']}"
    optimizer = cfg["optim_wrapper"].get("optimizer") or {}
    if "lr" not in optimizer:
        return text
    text += f", {type_name(optimizer)} with learning rate {optimizer['lr']}"
    scaling = cfg.get("auto_scale_lr") or {}
    if not scaling.get("base_batch_size"):
        return text
    text += f" for a batch of {scaling['base_batch_size']}"
    if scaling.get("enable"):
        return f"{text}, scaled to that of the run"
    return f"{text}; --auto-scale-lr scales it to that of the run"
