"""The report of several trainings as their last step, and its figures as a table."""

from __future__ import annotations

import json
from pathlib import Path

from kd_det.columns import aligned
from kd_det.commands.steps import Step

COLUMNS = ("bbox_mAP", "bbox_mAP_50", "bbox_mAP_75")


def report_step(root: Path, runs: list[Step]) -> Step:
    """The page on all runs; evaluates their models."""
    page = root / "report.html"
    command = ["-m", "kd_det", "report", *(str(run.folder) for run in runs), "--out", str(page)]
    results = [page, page.with_suffix(".json")]
    return Step("report", command, root / "report", inputs=runs, results=results)


def print_table(numbers: Path) -> None:
    """Print the accuracy of each run of a report, and what teaching gained over the plain student.

    Args:
        numbers: The report's JSON file.
    """
    runs = json.loads(numbers.read_text(encoding="utf-8"))
    # A model that finds nothing has no metrics.
    found = {run["name"]: [run["metrics"].get(f"coco/{c}", 0.0) for c in COLUMNS] for run in runs}
    plain = max((found[run["name"]][0] for run in runs if run["role"] == "plain"), default=None)
    rows = [["", *COLUMNS, "gain", "of the gap"]]
    for run in runs:
        row = [run["name"], *(f"{value:.3f}" for value in found[run["name"]])]
        if run["role"] == "distilled" and plain is not None:
            row.append(f"{found[run['name']][0] - plain:+.3f}")
            row += [f"{run['gap_closed']:.0%}"] if run["gap_closed"] is not None else []
        rows.append(row)
    print()
    for line in aligned(rows):
        print(line)
