"""A report on finished trainings: one HTML file that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kd_det.files import write_atomically
from kd_det.report import sections
from kd_det.report.comparison import Comparison
from kd_det.report.cost import measure
from kd_det.report.embedding_sections import center_similarity, embeddings
from kd_det.report.evaluation import evaluate
from kd_det.report.machine import software
from kd_det.report.page import Section, render
from kd_det.report.pictures import pictures
from kd_det.report.runs import read_runs
from kd_det.report.validation import Validation
from kd_det.version import __version__


def compare(folders: Sequence[Path], options: Mapping[str, Any] | None = None) -> Comparison:
    """Evaluate and measure the models of work directories.

    Evaluations of an earlier call are read where nothing changed.

    Args:
        folders: Work directories of teacher, plain and distilled runs, in any order.
        options: Entries to override in all configs.

    Raises:
        FileNotFoundError: If a config, checkpoint or the validation data is missing.
    """
    runs = read_runs(folders, options)
    # The distilled run's: teacher and plain student may be of other schedules and loaders.
    validation = Validation(runs[-1].cfg)
    evaluations = {run.name: evaluate(run, validation) for run in runs}
    costs = measure([validation.model(run) for run in runs], validation)
    return Comparison(runs, validation, evaluations, dict(zip(evaluations, costs)))


def write_report(comparison: Comparison, out: Path, images: int = 6) -> Path:
    """Write the page to ``out``, with a number of ``images`` of the validation data.

    Returns:
        The path of the page's numbers, a JSON file beside it.
    """
    parts = [part(comparison) for part in sections.ALL]
    parts += [embeddings(comparison), center_similarity(comparison), examples(comparison, images)]
    names = ", ".join(run.name for run in comparison.runs)
    footer = f"Made by kd_det {__version__}; {software()}."
    write_atomically(out, render(f"Distillation report: {names}", parts, footer).encode())
    numbers = out.with_suffix(".json")
    write_atomically(numbers, json.dumps(comparison.numbers(), indent=2).encode())
    return numbers


def examples(comparison: Comparison, number: int) -> Section:
    """Show the validation images in which plain and distilled student differ most."""
    title = "Pictures"
    plain, distilled = comparison.best("plain"), comparison.best("distilled")
    if plain is None or distilled is None:
        return Section(title, sections.without_pair(plain))
    if not comparison.metric.startswith("coco/"):
        return Section(title, "Left out: boxes are drawn for detectors alone.")
    shown = {run.name: comparison.evaluations[run.name] for run in comparison.chosen}
    pair = (plain.name, distilled.name)
    found, thresholds = pictures(comparison.validation, shown, pair, number)
    if not found:
        return Section(title, "Left out: the two students find the same in every image.")
    listed = ", ".join(f"{name} from {value:.2f}" for name, value in thresholds.items())
    text = (
        f"The {len(found)} validation images in which the F1 of {pair[0]} and {pair[1]} differs "
        "most, for better or worse. Shown are detections from the score on at which a model's F1 "
        f"over all images is highest: {listed}. Right: the class, and an IoU of at least 0.5."
    )
    return Section(title, text, pictures=found)
