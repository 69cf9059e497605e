"""Sections of a report on numbers: the summary, curves, losses, classes."""

from __future__ import annotations

import math
from collections.abc import Callable

from kd_det.report import figures
from kd_det.report.comparison import ROLE_COLORS, Comparison
from kd_det.report.machine import processor
from kd_det.report.page import Figure, Section, Table
from kd_det.report.runs import Run
from kd_det.report.scalars import task_loss

DISTILL = "distill."
MONITOR = "distill_monitor/"


def summary(comparison: Comparison) -> Section:
    """Compare metrics and cost of all models."""
    runs = comparison.runs
    metrics = [comparison.evaluations[run.name].metrics for run in runs]
    names = dict.fromkeys(name for found in metrics for name in found)
    rows = [
        [metric_name(name), *(number(name, found.get(name, math.nan)) for found in metrics)]
        for name in names
    ]
    closed = [comparison.gap_closed(run) for run in runs]
    rows.append(["gap closed", *("" if x is None else f"{x:.0%}" for x in closed)])
    costs = [comparison.costs[run.name] for run in runs]
    rows += [
        ["parameters, M", *(f"{cost.parameters / 1e6:.2f}" for cost in costs)],
        ["weights, MB", *(f"{cost.bytes / 1e6:.1f}" for cost in costs)],
        ["GFLOPs", *("-" if c.flops is None else f"{c.flops / 1e9:.2f}" for c in costs)],
        ["latency, ms", *(f"{cost.seconds * 1e3:.1f}" for cost in costs)],
        ["first quartile", *(f"{cost.low * 1e3:.1f}" for cost in costs)],
        ["third quartile", *(f"{cost.high * 1e3:.1f}" for cost in costs)],
    ]
    columns = ["", *(column_name(run) for run in runs)]
    text = (
        f"On {len(comparison.validation.dataset)} validation images. FLOPs: of convolutions and "
        "matrix products for one image, two for a multiply-add; counted by torch 2.1 and later. "
        "Latency: one image from its normalised pixels to the result, median of 20 rounds in "
        f"which all models take their turn, on {processor()}."
    )
    return Section("Summary", text, table=Table(columns, rows), facts=_facts(comparison))


def _facts(comparison: Comparison) -> list[tuple[str, str]]:
    teacher, plain, distilled = map(comparison.best, ("teacher", "plain", "distilled"))
    if distilled is None:
        return []
    metric, value = metric_name(comparison.metric), comparison.value(distilled)
    facts = [(number(comparison.metric, value), f"{metric} of {distilled.name}")]
    if plain is not None:
        gain = value - comparison.value(plain)
        facts.append((number(comparison.metric, gain, sign=True), f"over {plain.name}"))
    closed = comparison.gap_closed(distilled)
    if closed is not None:
        facts.append((f"{closed:.0%}", "of the gap to the teacher closed"))
    if teacher is not None:
        large, small = comparison.costs[teacher.name], comparison.costs[distilled.name]
        facts.append((f"{small.parameters / large.parameters:.0%}", "of the teacher's parameters"))
        facts.append((f"{small.seconds / large.seconds:.0%}", "of its time for an image"))
    return facts


def learning_curves(comparison: Comparison) -> Section:
    """Show the metric and the task's loss of all runs over time."""
    title = "Learning curves"
    here = [run for run in comparison.runs if run.trained_here]
    shown = []
    for caption, points_of, x_label in (
        (metric_name(comparison.metric), lambda run: run.scalars.get(comparison.metric, {}), None),
        ("loss of the task", lambda run: task_loss(run.scalars), "iteration"),
    ):
        series = {run.name: points_of(run) for run in here if points_of(run)}
        if series:
            label = x_label or _unit_of_validation(here[0])
            panel = figures.curves(series, comparison.colors, label, caption)
            shown.append(Figure(figures.uri(panel), f"{caption} in training"))
    if not shown:
        return Section(title, "None of the runs logged scalars (vis_data/scalars.json).")
    text = "As each training logged them; the distillation losses are not in the task's."
    return Section(title, text, shown)


def distillation_losses(comparison: Comparison) -> Section:
    """Show every distillation loss over time."""
    text = "As they enter the loss, with their weights."
    return _scalar_section(
        comparison, "Distillation losses", text, DISTILL,
        "No run logged distillation losses, since none was distilled.",
    )  # fmt: skip


def monitored(comparison: Comparison) -> Section:
    """Show the scalars that EmbeddingMonitorHook logged."""
    text = (
        "On the RoIs (or images) of training batches: norm, cosine to the class mean, and the "
        "share to which student and teacher give the same class."
    )
    return _scalar_section(
        comparison, "Embeddings in training", text, MONITOR,
        "No run logged them: its config has no kd_det.EmbeddingMonitorHook, or the training was "
        "shorter than its interval.",
    )  # fmt: skip


def _scalar_section(
    comparison: Comparison, title: str, text: str, prefix: str, otherwise: str
) -> Section:
    series: dict[str, dict[str, figures.Points]] = {}
    colors = dict(comparison.colors)
    for run in comparison.runs:
        for name, points in run.scalars.items():
            if name.startswith(prefix):
                caption, line = _place(name.removeprefix(prefix), run.name)
                series.setdefault(caption, {})[line] = points
                colors.setdefault(line, ROLE_COLORS["teacher"])
    shown = [
        Figure(figures.uri(figures.curves(lines, colors, "iteration", caption, wide=True)), caption)
        for caption, lines in series.items()
    ]
    return Section(title, text, shown) if shown else Section(title, otherwise)


def _place(name: str, run: str) -> tuple[str, str]:
    """Choose the figure of a scalar by its caption, and the name of its line.

    The same quantity of student and teacher goes to the same figure.
    """
    group, _, quantity = name.rpartition("/")
    line = f"teacher of {run}" if quantity.startswith("teacher_") else run
    quantity = quantity.removeprefix("teacher_").removeprefix("student_").replace("_", " ")
    return f"{group} {quantity}".strip(), line


def by_class(comparison: Comparison) -> Section:
    """Compare plain and distilled student by class, the largest gain first."""
    plain, distilled = comparison.best("plain"), comparison.best("distilled")
    detects = comparison.metric.startswith("coco/")
    what = "AP" if detects else "accuracy"
    title = f"{what[0].upper()}{what[1:]} by class"
    if plain is None or distilled is None:
        return Section(title, without_pair(plain))
    before, after = (comparison.evaluations[run.name].by_class for run in (plain, distilled))
    names = [name for name in before if name in after]
    names.sort(key=lambda name: before[name] - after[name])
    if not names:
        return Section(title, "Left out: the metric has no results by class of both students.")
    panel = figures.gains(
        names,
        [before[name] for name in names],
        [after[name] for name in names],
        (comparison.colors[plain.name], comparison.colors[distilled.name]),
        (plain.name, distilled.name),
        what,
    )
    rows = [
        [name, f"{before[name]:.3f}", f"{after[name]:.3f}", f"{after[name] - before[name]:+.3f}"]
        for name in names
    ]
    table = Table(["class", plain.name, distilled.name, "gain"], rows)
    better = sum(after[name] > before[name] for name in names)
    text = f"{distilled.name} is the better one in {better} of {len(names)} classes."
    return Section(title, text, [Figure(figures.uri(panel), f"{what}, sorted by gain")], table)


def without_pair(plain: Run | None) -> str:
    missing = "plain student" if plain is None else "distilled student"
    return f"Left out: this compares a plain with a distilled student, and no {missing} was given."


def column_name(run: Run) -> str:
    return run.name if run.role in run.name else f"{run.name} ({run.role})"


def metric_name(key: str) -> str:
    return key.split("/")[-1].removeprefix("bbox_").replace("_", " ")


def number(metric: str, value: float, sign: bool = False) -> str:
    """Format a metric; COCO's -1 means that no object was to be found."""
    if math.isnan(value) or (value == -1 and not sign):
        return "-"
    decimals = 3 if metric.startswith("coco/") else 2
    return f"{value:{'+' if sign else ''}.{decimals}f}"


def _unit_of_validation(run: Run) -> str:
    loop = run.cfg.get("train_cfg") or {}
    epochs = loop.get("by_epoch", "Epoch" in str(loop.get("type", "")))
    return "epoch" if epochs else "iteration"


ALL: tuple[Callable[[Comparison], Section], ...] = (
    summary,
    learning_curves,
    distillation_losses,
    monitored,
    by_class,
)
