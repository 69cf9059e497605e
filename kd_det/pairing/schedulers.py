"""Parameter schedulers, brought to another length of training."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from kd_det.registry import as_list, type_name

# Warm-up takes at most this part of training: mmdet's 500 iterations may be all of a small set's.
WARM_UP = 0.1
# MMEngine's ramps of less than two steps stay at the rate where they begin.
SHORTEST = 2
# What is counted in epochs or, with by_epoch=False, in iterations.
COUNTS = ("begin", "end", "T_max", "milestones", "step_size", "total_steps", "periods")
# MMEngine's for "until the end".
INF = 10**9
# Curves that their length defines, so that MMEngine may follow them by iterations.
CURVE = re.compile(
    "(Linear|Constant|CosineAnnealing|Poly|OneCycle|QuadraticWarmup)(LR|Momentum|ParamScheduler)"
)


@dataclass
class Length:
    """The new length of a training, and its ratio to the old one.

    Args:
        unit: ``'epochs'`` or ``'iterations'``, which the loop counts.
        new: The loop's length now.
        epochs: Factor for counts of epochs.
        iterations: Factor for counts of iterations; None if it is unknown.
        per_epoch: Iterations of an epoch now; None if unknown.
    """

    unit: str
    new: int
    epochs: float = 1.0
    iterations: float | None = 1.0
    per_epoch: int | None = None

    @property
    def total(self) -> int | None:
        """Iterations of the training; None if unknown."""
        if self.unit == "iterations":
            return self.new
        return None if self.per_epoch is None else self.per_epoch * self.new


def scale_schedulers(cfg: dict[str, Any], length: Length) -> list[str]:
    """Bring a config's schedulers to a length; returns what was decided, in sentences."""
    decisions: list[str] = []
    _scale_all(cfg, length, decisions)
    _shorten_warm_up(cfg, length, decisions)
    for scheduler in list_schedulers(cfg):
        if scheduler.get("end", INF) <= scheduler.get("begin", 0):
            scheduler["end"] = scheduler["begin"] + 1
    return decisions


def list_schedulers(cfg: dict[str, Any]) -> list[dict[str, Any]]:
    """The config's parameter schedulers."""
    return as_list(cfg.get("param_scheduler"))


def is_warm_up(scheduler: dict[str, Any]) -> bool:
    """Whether the rate rises from the first iteration on."""
    kind = type_name(scheduler)
    first = scheduler.get("start_factor", scheduler.get("factor", 1 / 3))
    rises = kind.startswith("QuadraticWarmup") or (
        kind.startswith(("Linear", "Constant")) and first < scheduler.get("end_factor", 1.0)
    )
    return rises and not scheduler.get("begin", 0) and scheduler.get("end", INF) < INF


def scale(value: Any, factor: float) -> Any:
    """A count, or each of a sequence; nothing that was above 0 becomes 0."""
    if isinstance(value, (list, tuple)):
        return [scale(each, factor) for each in value]
    if not isinstance(value, (int, float)) or value >= INF or value <= 0:
        return value
    return max(1, round(value * factor))


def _scale_all(cfg: dict[str, Any], length: Length, decisions: list[str]) -> None:
    by_epoch = [each for each in list_schedulers(cfg) if each.get("by_epoch", True)]
    if length.epochs != 1:
        _scale_epochs(cfg, by_epoch, length)
    by_iteration = [each for each in list_schedulers(cfg) if not each.get("by_epoch", True)]
    warm_ups = [each["end"] for each in by_iteration if is_warm_up(each)]
    for scheduler in by_iteration:
        counts = {key: scheduler[key] for key in COUNTS if scheduler.get(key)}
        if is_warm_up(scheduler) or not counts or length.iterations == 1:
            continue
        if length.iterations is None:
            total = "" if length.total is None else f", of which this training has {length.total}"
            listed = ", ".join(f"{key} {value}" for key, value in counts.items())
            decisions.append(
                f"{type_name(scheduler)} counts by iteration ({listed}{total}): it stays as it is, "
                "since its number of iterations is unknown in the student's config; set "
                "it with --cfg-options param_scheduler..."
            )
            continue
        for key, value in counts.items():
            # What begins where warm-up ends goes on doing so.
            if key != "begin" or value not in warm_ups:
                scheduler[key] = scale(value, length.iterations)


def _scale_epochs(cfg: dict[str, Any], by_epoch: list[dict[str, Any]], length: Length) -> None:
    """Scale schedulers that count epochs; where a phase has less than one, by its iterations."""
    exact = any(
        round(each["end"] * length.epochs) - round(each.get("begin", 0) * length.epochs)
        < (SHORTEST if is_warm_up(each) and not each.get("convert_to_iter_based") else 1)
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
                scheduler[key] = scale(scheduler[key], length.epochs)
        if curve:
            scheduler["convert_to_iter_based"] = True
            if is_warm_up(scheduler):
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
        kept = [each for each in list_schedulers(cfg) if not _is_empty(each, length.per_epoch)]
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
    by_iteration = [each for each in list_schedulers(cfg) if not each.get("by_epoch", True)]
    for scheduler in by_iteration:
        if not is_warm_up(scheduler) or scheduler["end"] <= most:
            continue
        end, part = scheduler["end"], "a tenth of training" if most > SHORTEST else "the shortest"
        decisions.append(f"warm-up of {end} iterations shortened to {most}, {part}")
        scheduler["end"] = most
        for other in by_iteration:
            if other.get("begin", 0) == end:
                other["begin"] = most
