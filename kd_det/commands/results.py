"""The report of several trainings as their last step, and its figures as a table."""

from __future__ import annotations

import json
from pathlib import Path

from kd_det.commands.steps import Step

COLUMNS = ("bbox_mAP", "bbox_mAP_50", "bbox_mAP_75")


def report_step(root: Path, runs: list[Step]) -> Step:
    """The page on all runs; evaluates their models."""
    page = root / "report.html"
    command = ["-m", "kd_det", "report", *(str(run.folder) for run in runs), "--out", str(page)]
    results = [page, page.with_suffix(".json")]
    return Step("report", command, root / "report", inputs=runs, results=results)


def print_table(numbers: Path) -> None:
    """Print the accuracy of each run in a report's numbers, and what the student gained.

    The gain is there if the student was trained alone too.
    """
    runs = json.loads(numbers.read_text(encoding="utf-8"))
    # A model that finds nothing has no metrics.
    values = {run["role"]: [run["metrics"].get(f"coco/{c}", 0.0) for c in COLUMNS] for run in runs}
    width = max(len(run["name"]) for run in runs) + 2
    print(f"\n{'':<{width}}" + "".join(f"{c:>13}" for c in COLUMNS))
    for run in runs:
        print(f"{run['name']:<{width}}" + "".join(f"{v:>13.3f}" for v in values[run["role"]]))
    if not {"teacher", "plain", "distilled"} <= values.keys():
        return
    teacher, alone, distilled = (values[role][0] for role in ("teacher", "plain", "distilled"))
    gain, gap = distilled - alone, teacher - alone
    print(
        f"{'gain':<{width}}{gain:>+13.3f}" + (f"   {gain / gap:.0%} of the gap" if gap > 0 else "")
    )
