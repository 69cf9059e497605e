"""Rows of measurements: as tables, as JSON, and two files of them side by side."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from mmengine.utils import get_git_hash

from _bench.timing import Times, ratio
from kd_det.errors import InvalidInputError
from kd_det.files import write_atomically
from kd_det.report.machine import processor, software


@dataclass(frozen=True)
class Row:
    """One figure.

    Args:
        suite: Of the benchmark.
        case: Model, shape or sizes.
        name: What was measured.
        value: The figure, of times the median.
        unit: Of the value: ms, MiB, images/s, ...
        spread: First and third quartile.
        against: What ``ratio`` divides the value by.
        ratio: Of times the median over rounds of the ratio within a round.
        target: What the ratio should not exceed (or, ``at_least``, reach).
        at_least: Whether the target is a lower bound.
    """

    suite: str
    case: str
    name: str
    value: float
    unit: str = "ms"
    spread: tuple[float, float] | None = None
    against: str = ""
    ratio: float | None = None
    target: float | None = None
    at_least: bool = False

    @property
    def verdict(self) -> str:
        """Whether the target is met, as text; empty without one."""
        if self.ratio is None or self.target is None:
            return ""
        met = self.ratio >= self.target if self.at_least else self.ratio <= self.target
        bound = "at least" if self.at_least else "at most"
        return f"{bound} {self.target:g}: {'yes' if met else 'NO'}"


@dataclass(frozen=True)
class Against:
    """What a time is divided by: the sum of ``parts``, called ``name``."""

    parts: Sequence[str]
    name: str = ""
    target: float | None = None
    at_least: bool = False


def time_rows(
    suite: str, case: str, times: Times, against: dict[str, Against] | None = None
) -> list[Row]:
    """A row for each of ``times``, with ratios for those that ``against`` names.

    With ``at_least`` the ratio is how many times faster, the other time by this one.
    """
    rows = []
    for name, seconds in times.items():
        ms = [1000 * s for s in seconds]
        low, _, high = statistics.quantiles(ms, n=4) if len(ms) > 1 else ms * 3
        options: dict[str, Any] = {}
        if other := (against or {}).get(name):
            text = other.name or " + ".join(other.parts)
            value = ratio(times, name, other.parts)
            if other.at_least:
                text, value = f"{text}, times faster", 1 / value
            options = dict(against=text, ratio=value, target=other.target, at_least=other.at_least)
        rows.append(Row(suite, case, name, statistics.median(ms), "ms", (low, high), **options))
    return rows


def machine(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """What the figures depend on besides the code."""
    found: dict[str, Any] = dict(
        commit=get_git_hash(digits=12),
        machine=software(),
        device=processor(device.type),
        threads=torch.get_num_threads(),
        dtype=str(dtype).removeprefix("torch."),
        tf32=device.type == "cuda" and torch.backends.cuda.matmul.allow_tf32,
    )
    return found | {name: version(name) for name in ("mmengine", "mmdet", "mmrazor")}


HEADINGS = ("case", "what", "median", "quartiles", "ratio", "to", "target")


def page(rows: Iterable[Row], about: dict[str, Any], command: str) -> str:
    """All rows as a page in Markdown, a table for each suite."""
    text = ", ".join(f"{key} {value}" for key, value in about.items())
    lines = ["# Measurements of speed", "", f"`{command}`", "", f"{text}."]
    for suite, its_rows in groupby(rows, lambda row: row.suite):
        lines += ["", f"## {suite}", "", *table(HEADINGS, map(_cells, its_rows))]
    return "\n".join(lines) + "\n"


def _cells(row: Row) -> list[str]:
    spread = f"{row.spread[0]:.4g} to {row.spread[1]:.4g}" if row.spread else ""
    share = "" if row.ratio is None else f"{row.ratio:.3g}"
    return [row.case, row.name, f"{row.value:.4g} {row.unit}", spread, share, row.against,
            row.verdict]  # fmt: skip


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table in Markdown, of columns that can be read on a terminal too."""
    every = [headings, *rows]
    widths = [max(map(len, column)) for column in zip(*every)]
    every.insert(1, ["-" * width for width in widths])
    return [f"| {' | '.join(map(str.ljust, row, widths))} |" for row in every]


def comparison(first: Path, second: Path) -> str:
    """The figures of two files of :func:`write`, and the second by the first."""
    (about, old), (other_about, new) = read(first), read(second)
    lines = [
        f"{key}: {about.get(key)} and {other_about.get(key)}"
        for key in sorted({*about, *other_about})
        if about.get(key) != other_about.get(key)
    ]
    found = {_key(row): row for row in new}
    both = [(row, found[_key(row)]) for row in old if _key(row) in found]
    if not both:
        raise InvalidInputError(f"{first} and {second} have no measurement in common")
    headings = ("case", "what", first.stem, second.stem, "second / first")
    for suite, pairs in groupby(both, lambda pair: pair[0].suite):
        cells = []
        for pair in pairs:
            row, later = pair
            change = f"{later.value / row.value:.3f}" if row.value else ""
            cells.append([row.case, row.name, *(f"{r.value:.4g} {r.unit}" for r in pair), change])
        lines += ["", suite, "", *table(headings, cells)]
    return "\n".join(lines)


def _key(row: Row) -> tuple[str, ...]:
    return row.suite, row.case, row.name, row.unit


def write(path: Path, rows: Iterable[Row], about: dict[str, Any]) -> None:
    """Write the rows and what they depend on as JSON."""
    content = {"about": about, "rows": [asdict(row) for row in rows]}
    write_atomically(path, json.dumps(content, indent=1).encode() + b"\n")


def read(path: Path) -> tuple[dict[str, Any], list[Row]]:
    """What :func:`write` wrote; ``InvalidInputError`` if the file is something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return content["about"], [Row(**row) for row in content["rows"]]
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInputError(
            f"{path}: expected a file that --json wrote, found {error!r}"
        ) from error
