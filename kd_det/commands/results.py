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


def metrics_by_role(numbers: Path) -> dict[str, dict[str, float]]:
    """COCO metrics in a report's numbers, without the metric's prefix."""
    return {
        run["role"]: {k.removeprefix("coco/"): v for k, v in run["metrics"].items()}
        for run in json.loads(numbers.read_text(encoding="utf-8"))
    }


def print_table(result: dict[str, dict[str, float]]) -> None:
    """Print the accuracy of each role, and what the student gained if it was trained alone too."""
    # A model that finds nothing has no metrics.
    result = {name: {c: metrics.get(c, 0.0) for c in COLUMNS} for name, metrics in result.items()}
    print(f"\n{'':<10}" + "".join(f"{c:>13}" for c in COLUMNS))
    for name, metrics in result.items():
        print(f"{name:<10}" + "".join(f"{metrics[c]:>13.3f}" for c in COLUMNS))
    if not {"teacher", "plain", "distilled"} <= result.keys():
        return
    gain = result["distilled"]["bbox_mAP"] - result["plain"]["bbox_mAP"]
    gap = result["teacher"]["bbox_mAP"] - result["plain"]["bbox_mAP"]
    print(f"{'gain':<10}{gain:>+13.3f}" + (f"   {gain / gap:.0%} of the gap" if gap > 0 else ""))
