"""The order and the cost of several trainings, before the first of them begins."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kd_det.columns import aligned
from kd_det.commands.steps import Step

if TYPE_CHECKING:
    from mmengine.config import Config

    from kd_det.commands.trainings import Training
    from kd_det.pairing.cost import Timing

WIDTH = 100
NOT_COUNTED = (
    "Estimated from a few iterations on this machine, as busy as it is now. Not counted: starting, "
    "the matching of an evaluation, what happens before a distillation's first iteration (the "
    "teacher is evaluated, and class centers are gathered where the method needs them), the report."
)
NO_REPORT = (
    'no report, which needs jinja2 and matplotlib: pip install "kd_det[report]", and the same '
    "command writes it"
)


def show(
    root: Path,
    trainings: Sequence[Training],
    timings: Mapping[str, Timing],
    report: Step | None,
) -> None:
    """Print a row for each step: its state, what it repeats how often, how long it takes."""
    rows, total = [], 0.0
    for number, part in enumerate(trainings, 1):
        timing, begun = timings.get(part.step.name), progress(part.step, part.cfg)
        row = [str(number), part.step.name, _state(part.step, begun)]
        if timing is not None:
            seconds = timing.seconds(begun)
            row += [_repeated(timing), duration(seconds)]
            total += seconds
        rows.append(row)
    if report is not None:
        rows.append([str(len(rows) + 1), report.name, _state(report, 0.0)])
    print(f"\nIn {root}, one after the other:")
    for line in aligned(rows):
        print(f"  {line}")
    if report is None:
        print(f"  {NO_REPORT}")
    if timings:
        text = f"Together {duration(total)}. {NOT_COUNTED}"
        print(textwrap.fill(text, WIDTH), flush=True)


def _state(step: Step, begun: float) -> str:
    if step.done:
        return "done"
    if step.outdated:
        return "again: settings, data or weights changed"
    return f"goes on at {begun:.0%}" if begun else "to do"


def progress(step: Step, cfg: Config) -> float:
    """The part of a training that its last checkpoint has behind it, from 0 to 1."""
    marker = step.folder / "last_checkpoint"
    if not step.begun or not marker.is_file():
        return 0.0
    found = re.search(r"(epoch|iter)_(\d+)\.pth", marker.read_text(encoding="utf-8"))
    length = cfg.train_cfg.get(f"max_{found[1]}s") if found else None
    return min(1.0, int(found[2]) / length) if found and length else 0.0


def _repeated(timing: Timing) -> str:
    text = f"{timing.iterations} iterations of {timing.iteration:.2f} s"
    if not timing.evaluations:
        return text
    return f"{text}, {timing.evaluations} x {timing.val_batches} batches of {timing.predict:.2f} s"


def duration(seconds: float) -> str:
    """A length of time, as rough as it is known."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            value = seconds / size
            return f"about {value:.1f} {unit}" if value < 10 else f"about {value:.0f} {unit}"
    return f"about {max(1, round(seconds))} s"
