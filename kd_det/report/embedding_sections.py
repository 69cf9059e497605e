"""Sections of a report on embeddings: norms, directions, class centers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from kd_det.centers import ClassCenters
from kd_det.config_files import type_name
from kd_det.report import figures
from kd_det.report.comparison import Comparison
from kd_det.report.embeddings import cosines, unit
from kd_det.report.page import Figure, Section, Table
from kd_det.report.runs import Run

FILE_NAME = "class_centers.safetensors"


def embeddings(comparison: Comparison) -> Section:
    """Compare norms, and cosines to the class mean: arXiv 2305.17007, figure 1."""
    title = "Norm and direction of embeddings"
    # The one whose class means are shown, too.
    chosen = [*comparison.chosen, _taught_by_centers(comparison)]
    shown = [
        run
        for run in comparison.runs
        if run in chosen and len(comparison.evaluations[run.name].labels)
    ]
    if not shown:
        return Section(
            title,
            "Left out: these models have no layer of class logits whose inputs could be compared "
            "(a two-stage detector's box head or a classifier's head.fc).",
        )
    found = {run.name: comparison.evaluations[run.name] for run in shown}
    norms = {name: np.linalg.norm(e.embeddings, axis=1) for name, e in found.items()}
    pictures = [
        Figure(figures.uri(figures.distributions(norms, comparison.colors, "norm")), "norms")
    ]
    means, origin = teacher_means(comparison)
    directions: dict[str, np.ndarray] = {}
    if means is not None:
        directions = {
            name: cosines(e.embeddings, e.labels, means)
            for name, e in found.items()
            if e.embeddings.shape[1] == means.shape[1]
        }
    if directions:
        caption = "cosine to the class mean"
        panel = figures.distributions(directions, comparison.colors, "cosine")
        pictures.append(Figure(figures.uri(panel), caption))
    rows = [
        [run.name, f"{np.median(norms[run.name]):.2f}", _median(directions.get(run.name))]
        for run in shown
    ]
    number = len(next(iter(found.values())).labels)
    objects = "annotated boxes" if comparison.metric.startswith("coco/") else "images"
    text = f"Of the same {number} {objects} of the validation data. {origin}"
    if len(directions) < len(shown):
        text += " An embedding of another size than the teacher's has no cosine to its means."
    return Section(title, text, pictures, Table(["median", "norm", "cosine"], rows))


def center_similarity(comparison: Comparison) -> Section:
    """Show the cosines between class centers."""
    title = "Similarity of class centers"
    means, origin = teacher_means(comparison)
    if means is None:
        return Section(title, origin)
    names = comparison.validation.class_names
    names += ["background"] * (len(means) - len(names))
    rows = unit(means)
    panel = figures.similarities(rows @ rows.T, names)
    return Section(
        title, origin, [Figure(figures.uri(panel), "cosine between the centers of two classes")]
    )


def teacher_means(comparison: Comparison) -> tuple[np.ndarray | None, str]:
    """Find the teacher's class means ``[C, D]``, and say where they come from or why they lack.

    They are those of the best student that learnt from class centers, or else of the validation
    data.
    """
    teacher, distilled = comparison.best("teacher"), _taught_by_centers(comparison)
    if teacher is None:
        return None, "Left out: class means are the teacher's, and no teacher was given."
    found = comparison.evaluations[teacher.name]
    if not len(found.labels):
        return None, "Left out: the teacher has no layer of class logits to take embeddings from."
    dim = found.embeddings.shape[1]
    file = _file_of(distilled) if distilled is not None else None
    centers = ClassCenters.load(file) if file is not None else None
    if distilled is None or centers is None or centers.embed_dim != dim:
        origin = "of the teacher on the validation data, since the method has no class centers."
        classes = max(len(comparison.validation.class_names), int(found.labels.max()) + 1)
        centers = ClassCenters(classes, dim)
        centers.update(torch.from_numpy(found.embeddings), torch.from_numpy(found.labels))
    else:
        origin = f"those that {distilled.name} learnt from, of the teacher on training data."
    return centers.means.numpy().astype(np.float64), f"Class means: {origin}"


def _taught_by_centers(comparison: Comparison) -> Run | None:
    """The best student that learnt from class centers."""
    runs = (run for run in comparison.runs if run.role == "distilled")
    return comparison.best_of(run for run in runs if _file_of(run) is not None)


def _file_of(run: Run) -> Path | None:
    """Find the file of class centers that a run used."""
    named = [
        hook.get("file")
        for hook in run.cfg.get("custom_hooks") or []
        if type_name(hook) == "ClassCenterHook"
    ]
    candidates = [Path(file) for file in named if isinstance(file, str)]
    candidates.append(run.folder / FILE_NAME)
    return next((path for path in candidates if path.is_file()), None)


def _median(values: np.ndarray | None) -> str:
    return "-" if values is None else f"{np.median(values):.3f}"
