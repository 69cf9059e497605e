"""One pass of a model over the validation data: metrics, detections, embeddings."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from kd_det.files import write_atomically
from kd_det.progress import progress, quiet
from kd_det.report.embeddings import embed
from kd_det.report.runs import Run
from kd_det.report.validation import Validation

LOWEST_SCORE = 0.05  # of the detections that are kept; pictures show fewer
EMBEDDED_IMAGES = 1000  # enough for a distribution; COCO's 5000 would take hundreds of megabytes
PER_CLASS = "_precision"  # how CocoMetric ends the names of its results by class
FORMAT = "1"


@dataclass(frozen=True)
class Evaluation:
    """Metrics, detections and embeddings of a model on the validation data.

    Args:
        metrics: The evaluator's results.
        by_class: AP of each class; for a classifier the share of its images that are found.
        boxes: Detections of a score of 0.05 or more, ``[n, 4]``, in pixels of the image files.
        scores: Scores of the detections, ``[n]``.
        classes: Classes of the detections, ``[n]``.
        images: Index of the image of each detection, ``[n]``, ascending.
        embeddings: Embeddings of annotated boxes (or images), ``[m, D]``; ``[0, 0]`` without any.
        labels: Classes of these boxes (or images), ``[m]``.
    """

    metrics: dict[str, float]
    by_class: dict[str, float]
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    images: np.ndarray
    embeddings: np.ndarray
    labels: np.ndarray

    def detections(self, image: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Look up boxes, scores and classes of one image."""
        first, last = np.searchsorted(self.images, [image, image + 1])
        return self.boxes[first:last], self.scores[first:last], self.classes[first:last]


def evaluate(run: Run, validation: Validation) -> Evaluation:
    """Evaluate a run's model, or read the result of an earlier call.

    The result is kept as ``report_<role>.safetensors`` in the run's folder, and holds while
    weights, data and metric are the same.
    """
    path = run.folder / f"report_{run.role}.safetensors"
    key = f"{validation.key(run)} {LOWEST_SCORE} {EMBEDDED_IMAGES}"
    found = _read(path, key)
    if found is None:
        found = _evaluate(run, validation)
        _write(path, key, found)
    return found


_ARRAYS = ("boxes", "scores", "classes", "images", "embeddings", "labels")


def _read(path: Path, key: str) -> Evaluation | None:
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            if (metadata.get("key"), metadata.get("format")) != (key, FORMAT):
                return None
            arrays = {name: file.get_tensor(name) for name in _ARRAYS}
            metrics, by_class = (json.loads(metadata[name]) for name in ("metrics", "by_class"))
    except (SafetensorError, OSError, KeyError, ValueError):
        return None  # damaged, and made anew
    return Evaluation(metrics, by_class, **arrays)


def _write(path: Path, key: str, found: Evaluation) -> None:
    metadata = {
        "key": key,
        "format": FORMAT,
        "metrics": json.dumps(found.metrics),
        "by_class": json.dumps(found.by_class),
    }
    arrays = {name: np.ascontiguousarray(getattr(found, name)) for name in _ARRAYS}
    write_atomically(path, save(arrays, metadata))


@torch.no_grad()
def _evaluate(run: Run, validation: Validation) -> Evaluation:
    model: Any = validation.model(run)
    evaluator = validation.evaluator()
    detected: list[tuple[np.ndarray, ...]] = []
    guesses: list[tuple[int, int]] = []
    embedded: list[tuple[np.ndarray, np.ndarray]] = []
    index = 0
    for batch in progress(validation.loader, f"Evaluating {run.name}"):
        data = model.data_preprocessor(batch, False)
        samples = model(**data, mode="predict")
        evaluator.process(data_samples=samples, data_batch=batch)
        images = range(index, index + len(samples))
        index += len(samples)
        for image, sample in zip(images, samples):
            if "pred_instances" in sample:
                detected.append(_detections(sample.pred_instances, image))
            elif "pred_label" in sample:
                guesses.append((int(sample.gt_label), int(sample.pred_label)))
        if images[0] < EMBEDDED_IMAGES:
            objects = [validation.objects(i) for i in images] if detected else []
            embedded.append(embed(model, data, objects))
    with quiet():
        results = evaluator.evaluate(index)
    return Evaluation(
        *_split(results, validation.class_names, guesses),
        *(np.concatenate(arrays) for arrays in zip(*detected or [_detections(None, 0)])),
        *(np.concatenate(arrays) for arrays in zip(*_filled(embedded))),
    )


def _detections(found: Any, image: int) -> tuple[np.ndarray, ...]:
    """Extract boxes, scores, classes and image index of the detections that are kept."""
    if found is None:
        return np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64)
    found = found[found.scores >= LOWEST_SCORE].cpu()
    boxes = getattr(found.bboxes, "tensor", found.bboxes).numpy()
    return boxes, found.scores.numpy(), found.labels.numpy(), np.full(len(boxes), image)


def _filled(embedded: list[tuple[np.ndarray, np.ndarray]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Choose the batches that have embeddings, which are of one size; or one without."""
    return [each for each in embedded if len(each[1])] or embedded[:1]


def _split(
    results: dict[str, Any], names: list[str], guesses: list[tuple[int, int]]
) -> tuple[dict[str, float], dict[str, float]]:
    """Split the evaluator's results into overall ones and those by class."""
    metrics, by_class = {}, {}
    for key, value in results.items():
        if not isinstance(value, (int, float, np.number)):
            continue
        name = key.split("/", 1)[-1].removesuffix(PER_CLASS)
        if not key.endswith(PER_CLASS) or name not in names:
            metrics[key] = float(value)
        elif not np.isnan(value):  # a class without objects
            by_class[name] = float(value)
    for label, name in enumerate(names):
        found = [guess == label for truth, guess in guesses if truth == label]
        if found:
            by_class[name] = float(np.mean(found))
    return metrics, by_class
