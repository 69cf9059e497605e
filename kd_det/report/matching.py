"""Correct detections, and the images in which two models differ most."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torchvision.ops import box_iou

IOU = 0.5


def right(
    boxes: np.ndarray,
    scores: np.ndarray,
    classes: np.ndarray,
    true_boxes: np.ndarray,
    true_classes: np.ndarray,
) -> np.ndarray:
    """Mark the detections that match an object first, by score: bool ``[n]``.

    A detection matches the object of its class that it overlaps most, with an IoU of 0.5 or more.

    Args:
        boxes: Detections of one image, ``[n, 4]``.
        scores: Scores of the detections, ``[n]``.
        classes: Classes of the detections, ``[n]``.
        true_boxes: Objects, ``[m, 4]``.
        true_classes: Classes of the objects, ``[m]``.
    """
    found = np.zeros(len(boxes), dtype=bool)
    if not len(boxes) or not len(true_boxes):
        return found
    overlaps = box_iou(torch.as_tensor(boxes).float(), torch.as_tensor(true_boxes).float()).numpy()
    overlaps[np.not_equal.outer(classes, true_classes)] = 0
    for index in np.argsort(-scores, kind="stable"):
        best = overlaps[index].argmax()
        if overlaps[index, best] >= IOU:
            found[index] = True
            overlaps[:, best] = 0  # it is taken
    return found


def best_threshold(scores: np.ndarray, correct: np.ndarray, objects: int) -> float:
    """Find the score from which on detections have the highest F1.

    Args:
        scores: Of all detections, ``[n]``.
        correct: Whether they are right, bool ``[n]``.
        objects: Number of objects.
    """
    if not len(scores):
        return 1.0
    order = np.argsort(-scores, kind="stable")
    f1 = 2 * correct[order].cumsum() / (np.arange(1, len(scores) + 1) + objects)
    return float(scores[order][f1.argmax()])


def f1(correct: np.ndarray, objects: int) -> float:
    """Compute the F1 of an image's detections; 1 without objects and detections."""
    number = len(correct) + objects
    return 2 * float(correct.sum()) / number if number else 1.0


def most_different(first: Sequence[float], second: Sequence[float], number: int) -> list[int]:
    """List the indices where two sequences differ most, the largest difference first."""
    differences = np.abs(np.subtract(second, first))
    order = np.argsort(-differences, kind="stable")[:number]
    return [int(index) for index in order if differences[index] > 0]
