"""The comparison of a report: runs, their evaluations, and the best of each role."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kd_det.report.cost import Cost
from kd_det.report.evaluation import Evaluation
from kd_det.report.runs import Run
from kd_det.report.validation import Validation

MAIN_METRICS = ("coco/bbox_mAP", "accuracy/top1")
ROLE_COLORS = {"teacher": "#6b6b6b", "plain": "#d95f02", "distilled": "#1b9e77"}
MORE_COLORS = ("#7570b3", "#e7298a", "#1f78b4", "#a6761d", "#66a61e", "#e6ab02")


@dataclass(frozen=True)
class Comparison:
    """Runs side by side on the same data, in the order teacher, plain, distilled.

    Evaluations and costs are by the name of a run.
    """

    runs: Sequence[Run]
    validation: Validation
    evaluations: Mapping[str, Evaluation]
    costs: Mapping[str, Cost]

    @property
    def metric(self) -> str:
        """Name of the metric by which models are compared."""
        known = [name for found in self.evaluations.values() for name in found.metrics]
        chosen = [name for name in MAIN_METRICS if name in known]
        return (chosen or known or list(MAIN_METRICS))[0]

    def value(self, run: Run) -> float:
        """Look up that metric of a run; NaN where its model detects nothing to evaluate."""
        return self.evaluations[run.name].metrics.get(self.metric, math.nan)

    def best(self, role: str) -> Run | None:
        """Choose the best run of a role."""
        return self.best_of(run for run in self.runs if run.role == role)

    def best_of(self, runs: Iterable[Run]) -> Run | None:
        """Choose the best of some runs."""
        return max(runs, key=lambda run: (not math.isnan(self.value(run)), self.value(run)),
                   default=None)  # fmt: skip

    @property
    def chosen(self) -> list[Run]:
        """The best run of each role."""
        found = (self.best(role) for role in ROLE_COLORS)
        return [run for run in found if run is not None]

    @property
    def colors(self) -> dict[str, str]:
        """Color of each run, by name."""
        found: dict[str, str] = {}
        more = list(MORE_COLORS)
        for run in self.runs:
            color = ROLE_COLORS[run.role]
            if color in found.values():
                color = more.pop(0)
                more.append(color)
            found[run.name] = color
        return found

    def gap_closed(self, run: Run) -> float | None:
        """Share of the gap from plain student to teacher that a run closes.

        None without a gap: unless the teacher is better.
        """
        plain, teacher = self.best("plain"), self.best("teacher")
        if run.role != "distilled" or plain is None or teacher is None:
            return None
        low, high, value = map(self.value, (plain, teacher, run))
        return (value - low) / (high - low) if high > low and not math.isnan(value) else None

    def numbers(self) -> list[dict[str, Any]]:
        """Collect all measurements of each run, for programs."""
        found = []
        for run in self.runs:
            cost = self.costs[run.name]
            found.append(
                {
                    "name": run.name,
                    "role": run.role,
                    "checkpoint": run.checkpoint,
                    "metrics": dict(self.evaluations[run.name].metrics),
                    "by_class": dict(self.evaluations[run.name].by_class),
                    "parameters": cost.parameters,
                    "weight_bytes": cost.bytes,
                    "flops": cost.flops,
                    "latency_seconds": dict(
                        median=cost.seconds, first_quartile=cost.low, third_quartile=cost.high
                    ),
                    "gap_closed": self.gap_closed(run),
                }
            )
        return found
