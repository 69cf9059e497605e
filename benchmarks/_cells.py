"""What the cells of the matrix found, and their table; noxfile.py makes them.

Needs the standard library alone: it runs beside nox, outside of the environments that are tested.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

# What users of mmdet have, and what nobody wants replaced.
STACK = ("torch", "torchvision", "numpy", "opencv", "mmengine", "mmcv", "mmdet", "mmrazor")
# What kd_det may bring along: its own small needs, and what those need.
SMALL = {
    "kd-det", "filelock", "joblib", "safetensors", "wrapt",
    "rich", "markdown-it-py", "mdurl", "pygments", "typing-extensions",
}  # fmt: skip


def canonical(name: str) -> str:
    """The one spelling of a distribution's name that PEP 503 knows."""
    return re.sub(r"[-_.]+", "-", name).lower()


def planned(report: dict[str, Any]) -> dict[str, str]:
    """Versions by name that ``pip install --dry-run --report`` would install."""
    found = (item["metadata"] for item in report["install"])
    return {canonical(meta["name"]): meta["version"] for meta in found}


def unwanted(plan: dict[str, str], installed: dict[str, str]) -> list[str]:
    """What of a plan is more than kd_det's small needs, or replaces what is installed."""
    return [
        f"{name} {version}" + (f" for {installed[name]}" if name in installed else "")
        for name, version in sorted(plan.items())
        if name in installed or name not in SMALL
    ]


def read_tests(report: Path) -> dict[str, Any]:
    """Passed, failed and skipped tests, with reasons, of a JUnit report by pytest."""
    passed, failed, skipped = 0, [], Counter()
    for case in ElementTree.parse(report).iter("testcase"):
        outcome = {child.tag: child for child in case}
        if "failure" in outcome or "error" in outcome:
            failed.append(f"{case.get('classname')}::{case.get('name')}")
        elif "skipped" in outcome:
            skipped[str(outcome["skipped"].get("message"))] += 1
        else:
            passed += 1
    return dict(passed=passed, failed=failed, skipped=dict(skipped))


def table(folder: Path) -> str:
    """A row for each cell, and below them what does not fit into one."""
    cells = [json.loads(path.read_text(encoding="utf-8")) for path in _in_order(folder)]
    lines = [
        "| cell | Python | torch | numpy | opencv | mmcv | mmengine, mmdet, mmrazor "
        "| pip would add | passed | failed | skipped | mAP | commit, date |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    notes = []
    for cell in cells:
        lines.append("| " + " | ".join(_row(cell)) + " |")
        notes += _notes(cell)
    return "\n".join([*lines, *([""] + notes if notes else [])]) + "\n"


def _in_order(folder: Path) -> list[Path]:
    """By Python's and torch's versions, read as numbers."""

    def key(path: Path) -> tuple[list[int], str]:
        return [int(n) for n in re.findall(r"\d+", path.stem)], path.stem

    return sorted(folder.glob("*.json"), key=key)


def _row(cell: dict[str, Any]) -> Iterable[str]:
    have = cell["packages"]
    tests, pip = cell.get("tests"), cell.get("pip")
    counts = ["", "", ""]
    if tests:
        skipped = sum(tests["skipped"].values())
        counts = [f"{tests['passed']} ({tests['selection']})", str(len(tests["failed"]))]
        counts.append(str(skipped))
    added = ""
    if pip is not None:
        names = [name for name in pip["plan"] if name != "kd-det"]
        added = ", ".join(names) or "nothing"
    score = cell.get("digits")
    return [
        cell["cell"],
        cell["python"],
        have.get("torch", ""),
        have.get("numpy", ""),
        _all(have, "opencv"),
        _all(have, "mmcv", "onedl-mmcv"),
        _all(have, "mmengine", "onedl-mmengine", "mmdet", "onedl-mmdet", "mmrazor"),
        added,
        *counts,
        f"{score['mAP']:.3f}" if score else "",
        f"{cell['commit']}, {cell['date']}",
    ]


def _all(have: dict[str, str], *prefixes: str) -> str:
    """The distributions of these names that are there, with their versions."""
    return ", ".join(f"{n} {v}" for n, v in have.items() if n.startswith(prefixes))


def _notes(cell: dict[str, Any]) -> list[str]:
    name, tests = cell["cell"], cell.get("tests")
    lines = [f"- {name}: {text}" for text in cell.get("notes", [])]
    for item in cell.get("pip", {}).get("unwanted", []):
        lines.append(f"- {name}: pip would install {item}")
    if tests:
        lines += [f"- {name}: failed: `{test}`" for test in tests["failed"]]
        lines += [f"- {name}: skipped {n}: {why}" for why, n in tests["skipped"].items()]
    return lines
