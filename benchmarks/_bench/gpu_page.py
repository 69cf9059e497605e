"""The page of a GPU run, made of the files that its stages have left so far."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from _bench import report
from _bench.report import Row
from _bench.stages import Outcome

STEP_HEADINGS = ("case", "what", "ms", "images/s", "peak MiB", "% of the product's rate")


def page(folder: Path, outcomes: Sequence[Outcome], dry_run: bool) -> str:
    """All that the stages left in ``folder``, as Markdown."""
    lines = ["# A dry run, on a CPU" if dry_run else "# A run on a GPU", ""]
    lines += [f"`bash benchmarks/gpu.sh{' --dry-run' if dry_run else ''}`", ""]
    states = [(x.name, x.state, f"{x.seconds:g}") for x in outcomes]
    lines += report.table(("stage", "outcome", "seconds"), states)
    if (folder / "tests.xml").exists():
        lines += ["", "## tests", "", *_tests(folder / "tests.xml")]
    for name in ("steps", "prepass", "trace", "training"):
        path = folder / f"{name}.json"
        if not path.exists():
            continue
        about, rows = report.read(path)
        lines += ["", f"## {name}", "", ", ".join(f"{k} {v}" for k, v in about.items()) + ".", ""]
        lines += _steps(rows) if name == "steps" else _plain(rows)
    return "\n".join(lines) + "\n"


def _plain(rows: Iterable[Row]) -> list[str]:
    cells = [(row.case, row.name, f"{row.value:.4g} {row.unit}") for row in rows]
    return report.table(("case", "what", "value"), cells)


def _steps(rows: Iterable[Row]) -> list[str]:
    """A line for each case and work, of the rows that :func:`gpu_steps.measure` gives of it."""
    lines: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        work, _, _ = row.name.partition(":")
        lines.setdefault((row.case, work), {})[row.unit] = f"{row.value:.4g}"
    units = ("ms", "images/s", "MiB", "%")
    cells = [(*key, *(found.get(unit, "") for unit in units)) for key, found in lines.items()]
    return report.table(STEP_HEADINGS, cells)


def _tests(path: Path) -> list[str]:
    """How many passed, and the names of those that did not."""
    cases = list(ElementTree.parse(path).getroot().iter("testcase"))
    bad = [case for case in cases if _find(case, "failure", "error") is not None]
    skipped = [case for case in cases if _find(case, "skipped") is not None]
    passed = len(cases) - len(bad) - len(skipped)
    lines = [f"{passed} passed, {len(bad)} failed, {len(skipped)} skipped."]
    if bad:
        lines += ["", *report.table(("failed", "why"), [_reason(case) for case in bad])]
    return lines


def _find(case: Any, *tags: str) -> Any:
    return next((part for part in case if part.tag in tags), None)


def _reason(case: Any) -> tuple[str, str]:
    message = _find(case, "failure", "error").get("message", "").strip() or "no message"
    first = message.splitlines()[0].replace("|", "/")
    return f"{case.get('classname')}.{case.get('name')}".replace("|", "/"), first[:160]
