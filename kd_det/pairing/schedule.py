"""The length of a training: loop, schedulers and hooks, brought to another number of epochs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kd_det.config_files import type_name
from kd_det.errors import InvalidInputError

# Warm-up takes at most this part of training: mmdet's 500 iterations may be all of a small set's.
WARM_UP = 0.1
# MMEngine's ramps of less than two steps stay at the rate where they begin.
SHORTEST = 2
# Of schedulers, what is counted in epochs or, with by_epoch=False, in iterations.
COUNTS = ("begin", "end", "T_max", "milestones", "step_size", "total_steps", "periods")
# Of hooks, what is counted in epochs, and in iterations.
HOOK_EPOCHS = ("switch_epoch", "num_last_epochs", "begin_epoch")
HOOK_ITERATIONS = ("begin_iter",)
# MMEngine's for "until the end".
INF = 10**9
# Curves that their length defines, so that MMEngine may follow them by iterations.
CURVE = re.compile(
    "(Linear|Constant|CosineAnnealing|Poly|OneCycle|QuadraticWarmup)(LR|Momentum|ParamScheduler)"
)


@dataclass
class Length:
    """How long a training is now and was before.

    Args:
        unit: ``'epochs'`` or ``'iterations'``, which the loop counts.
        new: The loop's length now.
        epochs: By how much what is counted in epochs is multiplied.
        iterations: Likewise in iterations; None if that is not known.
        per_epoch: Iterations of an epoch now; None if that is not known.
    """

    unit: str
    new: int
    epochs: float = 1.0
    iterations: float | None = 1.0
    per_epoch: int | None = None

    @property
    def total(self) -> int | None:
        """Iterations of the training; None if that is not known."""
        if self.unit == "iterations":
            return self.new
        return None if self.per_epoch is None else self.per_epoch * self.new


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
        What was decided, in sentences; the length and the optimizer first.

    Raises:
        kd_det.errors.InvalidInputError: If ``epochs`` is below 1, or if the loop counts
            iterations and nobody knows how many are an epoch.
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
    _scale_schedulers(cfg, length, decisions)
    _shorten_warm_up(cfg, length, decisions)
    for scheduler in schedulers(cfg):
        if scheduler.get("end", INF) <= scheduler.get("begin", 0):
            scheduler["end"] = scheduler["begin"] + 1
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
            "max_iters, so nothing is known to bring to another length; leave --epochs out"
        )
    if epochs is None:
        return Length("iterations", old, per_epoch=per_epoch)
    if per_epoch is None:
        raise InvalidInputError(
            "the student trains by iterations, and nobody knows how many of them are an epoch, "
            "since the images were not counted; leave --epochs out and set train_cfg.max_iters"
        )
    new = epochs * per_epoch
    return Length("iterations", new, new / old, new / old, per_epoch)


def _iterations_factor(
    cfg: dict[str, Any], length: Length, factor: float, same_data: bool
) -> float | None:
    """By how much what is counted in iterations changes where the loop counts epochs."""
    if same_data:
        return factor
    made_for = [
        end
        for scheduler in schedulers(cfg)
        if not scheduler.get("by_epoch", True) and not _is_warm_up(scheduler)
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


def schedulers(cfg: dict[str, Any]) -> list[dict[str, Any]]:
    """The config's parameter schedulers."""
    found = cfg.get("param_scheduler") or []
    return found if isinstance(found, list) else [found]


def _is_warm_up(scheduler: dict[str, Any]) -> bool:
    """Whether the rate rises from the first iteration on."""
    kind = type_name(scheduler)
    first = scheduler.get("start_factor", scheduler.get("factor", 1 / 3))
    rises = kind.startswith("QuadraticWarmup") or (
        kind.startswith(("Linear", "Constant")) and first < scheduler.get("end_factor", 1.0)
    )
    return rises and not scheduler.get("begin", 0) and scheduler.get("end", INF) < INF


def _scaled(value: Any, factor: float) -> Any:
    """A count, or each of a sequence; nothing that was above 0 becomes 0."""
    if isinstance(value, (list, tuple)):
        return [_scaled(each, factor) for each in value]
    if not isinstance(value, (int, float)) or value >= INF or value <= 0:
        return value
    return max(1, round(value * factor))


def _scale_loop(cfg: dict[str, Any], length: Length) -> None:
    loop = cfg["train_cfg"]
    loop["max_epochs" if length.unit == "epochs" else "max_iters"] = length.new
    interval = loop.get("val_interval", 1 if length.unit == "epochs" else 1000)
    loop["val_interval"] = _interval(interval, length)
    if "val_begin" in loop:
        loop["val_begin"] = _scaled(loop["val_begin"], length.epochs)
    if loop.get("dynamic_intervals"):
        loop["dynamic_intervals"] = [
            (_scaled(begin, length.epochs), _interval(each, length))
            for begin, each in loop["dynamic_intervals"]
        ]


def _interval(value: int, length: Length) -> int:
    """Of evaluations and checkpoints; those by epoch stay where the training has room for them."""
    scaled = value if length.unit == "epochs" else _scaled(value, length.epochs)
    return min(scaled, length.new)


def _scale_hooks(cfg: dict[str, Any], length: Length, decisions: list[str]) -> None:
    for hook in hooks(cfg):
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
                old, hook[key] = hook[key], _scaled(hook[key], factor)
                decisions.append(f"{type_name(hook)}: {key} {old} becomes {hook[key]}")


def hooks(cfg: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The config's hooks, default and custom ones."""
    named = (cfg.get("default_hooks") or {}).values()
    yield from (hook for hook in (*named, *(cfg.get("custom_hooks") or ())) if hook)


def _scale_schedulers(cfg: dict[str, Any], length: Length, decisions: list[str]) -> None:
    by_epoch = [each for each in schedulers(cfg) if each.get("by_epoch", True)]
    if length.epochs != 1:
        _scale_epochs(cfg, by_epoch, length)
    by_iteration = [each for each in schedulers(cfg) if not each.get("by_epoch", True)]
    warm_ups = [each["end"] for each in by_iteration if _is_warm_up(each)]
    for scheduler in by_iteration:
        counts = {key: scheduler[key] for key in COUNTS if scheduler.get(key)}
        if _is_warm_up(scheduler) or not counts or length.iterations == 1:
            continue
        if length.iterations is None:
            total = "" if length.total is None else f", of which this training has {length.total}"
            listed = ", ".join(f"{key} {value}" for key, value in counts.items())
            decisions.append(
                f"{type_name(scheduler)} counts by iteration ({listed}{total}): it stays as it is, "
                "since the student's config does not say for how many iterations it is made; set "
                "it with --cfg-options param_scheduler..."
            )
            continue
        for key, value in counts.items():
            # What begins where warm-up ends goes on doing so.
            if key != "begin" or value not in warm_ups:
                scheduler[key] = _scaled(value, length.iterations)


def _scale_epochs(cfg: dict[str, Any], by_epoch: list[dict[str, Any]], length: Length) -> None:
    """Scale schedulers that count epochs; where a phase has less than one, by its iterations."""
    exact = any(
        round(each["end"] * length.epochs) - round(each.get("begin", 0) * length.epochs)
        < (SHORTEST if _is_warm_up(each) and not each.get("convert_to_iter_based") else 1)
        for each in by_epoch
        if each.get("end", INF) < INF
    )
    moved: dict[float, float] = {}
    for scheduler in by_epoch:
        curve = exact and CURVE.fullmatch(type_name(scheduler))
        for key in COUNTS:
            if scheduler.get(key) and curve and scheduler[key] < INF:
                scheduler[key] = round(scheduler[key] * length.epochs, 4)
            elif scheduler.get(key):
                scheduler[key] = _scaled(scheduler[key], length.epochs)
        if curve:
            scheduler["convert_to_iter_based"] = True
            if _is_warm_up(scheduler):
                least = _shortest(length)
                moved[scheduler["end"]] = scheduler["end"] = max(scheduler["end"], least)
        elif scheduler.get("end", INF) < INF:
            begin = min(scheduler.get("begin", 0), length.new - 1)
            scheduler.update(begin=begin, end=max(scheduler["end"], begin + 1))
    for scheduler in by_epoch:
        begin = scheduler.get("begin", 0)
        if begin in moved:
            scheduler["begin"] = moved[begin]
    if exact and length.per_epoch is not None:
        kept = [each for each in schedulers(cfg) if not _is_empty(each, length.per_epoch)]
        cfg["param_scheduler"] = kept


def _shortest(length: Length) -> float:
    """The shortest warm-up in epochs, rounded up."""
    if length.per_epoch is None:
        return WARM_UP
    return math.ceil(SHORTEST / length.per_epoch * 1e4) / 1e4


def _is_empty(scheduler: dict[str, Any], per_epoch: int) -> bool:
    """Whether no iteration is left of a phase that is followed by iterations."""
    begin, end = (int(scheduler.get(key, INF) * per_epoch) for key in ("begin", "end"))
    return bool(scheduler.get("convert_to_iter_based")) and "begin" in scheduler and begin >= end


def _shorten_warm_up(cfg: dict[str, Any], length: Length, decisions: list[str]) -> None:
    if length.total is None:
        return
    most = max(SHORTEST, int(WARM_UP * length.total))
    by_iteration = [each for each in schedulers(cfg) if not each.get("by_epoch", True)]
    for scheduler in by_iteration:
        if not _is_warm_up(scheduler) or scheduler["end"] <= most:
            continue
        end, part = scheduler["end"], "a tenth of training" if most > SHORTEST else "the shortest"
        decisions.append(f"warm-up of {end} iterations shortened to {most}, {part}")
        scheduler["end"] = most
        for other in by_iteration:
            if other.get("begin", 0) == end:
                other["begin"] = most


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
    return f"{text}, not scaled to that of the run (--auto-scale-lr does it)"
