"""Distillation losses: their size, trend and share, and what is wrong with them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from kd_det.hooks.zero_loss_hook import ITERATIONS, ROUNDING, explain_zero
from kd_det.report.doctor.finding import Finding
from kd_det.report.scalars import task_loss

PREFIX = "distill."
# A loss as many times as large as all of the task's, or with as many times its gradient.
DWARFS, DWARFS_BY_GRADIENT = 10, 3
# What share of the task's a loss must have to matter.
MATTERS, MATTERS_BY_GRADIENT = 1e-3, 1e-2
RISES = 1.2
# A trend of fewer logged points is chance.
TREND_POINTS = 5

Scalars = Mapping[str, Mapping[int, float]]


@dataclass(frozen=True)
class LossFacts:
    """Figures of one distillation loss, as logged: means over MMEngine's smoothing window.

    Args:
        name: Its name in the distiller.
        first: Its first logged value, with all weights.
        last: The mean of the last fifth of its logged values.
        trend: The last fifth in units of the first, without the factor of ``LossWeightHook``;
            None with fewer than five values, or where ``LossBalanceHook`` scales the loss.
        share: Of the total loss, in the last fifth.
        task_first: The sum of the task's losses where ``first`` is.
        task_last: Their mean in the last fifth.
        gradient: Norm of its gradient at the student's neck in units of the task's, in the last
            fifth; None where neither ``GradientShareHook`` nor ``LossBalanceHook`` measured it.
        zero_until: The last iteration of the zeros with which it begins, but for rounding; None
            without any.
        always_zero: Whether it never was anything else.
    """

    name: str
    first: float
    last: float
    trend: float | None
    share: float
    task_first: float
    task_last: float
    gradient: float | None
    zero_until: int | None
    always_zero: bool


def read_losses(scalars: Scalars) -> list[LossFacts]:
    """The figures of all distillation losses that were logged with a finite value."""
    task = _finite(task_loss({name: dict(points) for name, points in scalars.items()}))
    terms = {
        key[len(PREFIX) :]: {step: value for step, value in _finite(points).items() if step in task}
        for key, points in scalars.items()
        if key.startswith(PREFIX)
    }
    # Not the logged total, of which one NaN makes NaN.
    total = {
        step: value + sum(points.get(step, 0) for points in terms.values())
        for step, value in task.items()
    }
    return [_facts(name, points, task, total, scalars) for name, points in terms.items() if points]


def _facts(
    name: str,
    points: dict[int, float],
    task: Mapping[int, float],
    total: Mapping[int, float],
    scalars: Scalars,
) -> LossFacts:
    steps = list(points)
    tail = steps[-max(1, len(steps) // 5) :]
    least = ROUNDING * max(map(abs, total.values()))
    zeros = next((i for i, step in enumerate(steps) if abs(points[step]) > least), len(steps))
    weights, scales, pulls = (scalars.get(f"{x}/{name}", {}) for x in ("weight", "scale", "share"))
    weight = {step: weights.get(step, 1.0) for step in steps}
    own = [points[step] / weight[step] for step in steps if weight[step] > 0]
    shares = scalars.get(f"gradient/{name}", {})
    gradients = [shares[step] for step in tail if step in shares] or [
        # What LossBalanceHook logs is measured before scales and weights.
        pulls[step] * scales.get(step, 1.0) * weight[step]
        for step in tail
        if pulls.get(step, 0) > 0
    ]
    last = fmean(points[step] for step in tail)
    return LossFacts(
        name=name,
        first=points[steps[0]],
        last=last,
        # The first scales vary by orders of magnitude within the smoothing window.
        trend=None if scales or zeros == len(steps) else _trend(own),
        share=0.0 if zeros == len(steps) else last / fmean(total[step] for step in tail),
        task_first=task[steps[0]],
        task_last=fmean(task[step] for step in tail),
        gradient=fmean(gradients) if gradients else None,
        zero_until=steps[zeros - 1] if zeros else None,
        always_zero=zeros == len(steps),
    )


def find_in_losses(
    facts: list[LossFacts], cfg: Any, scalars: Scalars, helped: bool = False
) -> Iterator[Finding]:
    """Losses that are 0, too large, too small, or that rise.

    Args:
        facts: Of all losses.
        cfg: The training's config.
        scalars: What was logged.
        helped: Whether the student is known to be clearly better than without them: then none is
            a problem for being large.
    """
    task = list(_finite(task_loss({k: dict(v) for k, v in scalars.items()})).values())
    trend = _trend(task)
    if trend is not None and trend > RISES:
        yield Finding(
            "task_loss",
            True,
            f"The task's losses rise, to {trend:.3g} times their size at first: the learning rate "
            "or a distillation loss is too large.",
        )
    model = cfg.get("model") or {}
    configs = (model.get("distiller") or {}).get("distill_losses") or {}
    for each in facts:
        if each.always_zero or (each.zero_until or 0) >= ITERATIONS:
            yield _zero(each, model, scalars.get(f"weight/{each.name}", {}))
        if not each.always_zero:
            yield from _size(each, configs.get(each.name) or {}, helped)
            if each.trend is not None and each.trend > RISES:
                yield Finding(
                    "rising_loss",
                    False,
                    f"{each.name} rises, to {each.trend:.3g} times its size at first: the student "
                    "moves away from the teacher in what this loss compares.",
                )


def _size(facts: LossFacts, config: Mapping[str, Any], helped: bool) -> Iterator[Finding]:
    if facts.task_first <= 0 or facts.task_last <= 0:
        return
    at_first, at_last = facts.first / facts.task_first, facts.last / facts.task_last
    sizes = f"{facts.first:.3g} against {facts.task_first:.3g} at first, {facts.last:.3g} against "
    sizes += f"{facts.task_last:.3g} at last"
    if facts.gradient is None:
        large, small = max(at_first, at_last) >= DWARFS, at_last < MATTERS
        reason = sizes
    else:
        large, small = facts.gradient >= DWARFS_BY_GRADIENT, facts.gradient < MATTERS_BY_GRADIENT
        reason = f"its gradient at the student's neck is {facts.gradient:.3g} times theirs ({sizes}"
        reason += " in size)"
    weight = config.get("loss_weight")
    now = "" if not isinstance(weight, (int, float)) else f" (now {weight:g})"
    if large:
        text = f"{facts.name} dwarfs the task's losses: {reason}. "
        if helped:
            text += f"The student gains all the same; a lower loss_weight{now} may do better."
        else:
            text += f"Lower its loss_weight{now}, or hold it at a share of the task's gradient by "
            text += "kd_det.LossBalanceHook."
        yield Finding("dwarfing_loss", not helped, text)
    elif small and facts.last:
        yield Finding(
            "weak_loss",
            False,
            f"{facts.name} is too small to matter: {reason}. Raise its loss_weight{now}.",
        )


def _zero(facts: LossFacts, model: Mapping[str, Any], weights: Mapping[int, float]) -> Finding:
    when = "in all that was logged" if facts.always_zero else f"up to iteration {facts.zero_until}"
    held = [weight for step, weight in weights.items() if step <= (facts.zero_until or 0)]
    reason = explain_zero(facts.name, model, held=bool(held) and not any(held))
    return Finding("zero_loss", not reason.meant, f"{facts.name} is 0 {when}; {reason}.")


def table(facts: list[LossFacts]) -> list[str]:
    """Lines of a table."""
    rows = [["loss", "first", "last", "trend", "of total", "gradient/task"]]
    for each in facts:
        trend = "-" if each.trend is None else f"x{each.trend:.2f}"
        gradient = "-" if each.gradient is None else f"{each.gradient:.3g}"
        row = [each.name, f"{each.first:.4g}", f"{each.last:.4g}", trend, f"{each.share:.1%}"]
        rows.append([*row, gradient])
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:]))])
        for row in rows
    ]


def _trend(values: list[float]) -> float | None:
    """The mean of the last fifth in units of that of the first."""
    if len(values) < TREND_POINTS:
        return None
    fifth = len(values) // 5
    first = fmean(values[:fifth])
    return fmean(values[-fifth:]) / first if first else None


def _finite(points: Mapping[int, float]) -> dict[int, float]:
    return {step: value for step, value in points.items() if math.isfinite(value)}
