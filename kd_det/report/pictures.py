"""Validation images side by side: the objects, and the detections of each model."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import mmcv
import numpy as np

from kd_det.progress import progress
from kd_det.report.evaluation import Evaluation
from kd_det.report.matching import best_threshold, f1, most_different, right
from kd_det.report.validation import Validation

LONGEST_SIDE = 480  # of an embedded image, pixels
TRUTH = "ground truth"


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels of the picture, its text, and if it is correct (None: an object).

    Its colour is that of objects, or of what is correct or not, unless one is given.
    """

    x: float
    y: float
    width: float
    height: float
    text: str
    right: bool | None
    color: str = ""


@dataclass(frozen=True)
class Picture:
    """A validation image with the boxes of each column.

    Args:
        name: Of the image file.
        uri: The image, embedded.
        width: Of the picture, pixels.
        height: Of the picture, pixels.
        columns: Boxes by column.
        f1: F1 by column, without the ground truth's.
        key: Colours of its boxes and what they mean, instead of texts at the boxes.
    """

    name: str
    uri: str
    width: int
    height: int
    columns: dict[str, list[Box]]
    f1: dict[str, float]
    key: Sequence[tuple[str, str]] = ()


def pictures(
    validation: Validation,
    evaluations: Mapping[str, Evaluation],
    compared: tuple[str, str],
    number: int,
) -> tuple[list[Picture], dict[str, float]]:
    """Find the images in which the F1 of two models differs most, and each model's threshold.

    A model's detections count from the score on at which its F1 over all images is highest, so
    that models with differently calibrated scores are shown at their best.
    Evaluations are by the name of a column, in their order.
    """
    images = range(len(validation.dataset))
    objects = [validation.objects(image) for image in images]
    total = sum(len(labels) for _, labels in objects)
    thresholds, correct = {}, {}
    for name, found in evaluations.items():
        marks = [
            right(*found.detections(i), *objects[i])
            for i in progress(images, f"Comparing what {name} finds")
        ]
        thresholds[name] = best_threshold(found.scores, np.concatenate(marks), total)
        correct[name] = marks

    def shown(name: str, image: int) -> np.ndarray:
        return evaluations[name].detections(image)[1] >= thresholds[name]

    def quality(name: str, image: int) -> float:
        return f1(correct[name][image][shown(name, image)], len(objects[image][1]))

    first, second = ([quality(name, image) for image in images] for name in compared)
    result = []
    for image in most_different(first, second, number):
        uri, width, height, scale = embed(validation.image_path(image))
        names = validation.class_names
        boxes, labels = objects[image]
        columns = {TRUTH: [_box(b * scale, names[c], None) for b, c in zip(boxes, labels)]}
        for name, found in evaluations.items():
            rows = zip(*found.detections(image), correct[name][image], shown(name, image))
            columns[name] = [
                _box(b * scale, f"{names[c]} {s:.2f}", bool(r)) for b, s, c, r, kept in rows if kept
            ]
        values = {name: quality(name, image) for name in evaluations}
        path = validation.image_path(image)
        result.append(Picture(path.name, uri, width, height, columns, values))
    return result, thresholds


def _box(corners: np.ndarray, text: str, correct: bool | None) -> Box:
    x1, y1, x2, y2 = (round(float(value), 1) for value in corners)
    return Box(x1, y1, round(x2 - x1, 1), round(y2 - y1, 1), text, correct)


def embed(path: Path) -> tuple[str, int, int, float]:
    """Read an image as a data URI, with the picture's width, height, and scale to the file."""
    image = mmcv.imread(str(path))
    height, width = image.shape[:2]
    # All pictures are of one size, for which text is; small images are enlarged by the browser.
    scale = LONGEST_SIDE / max(height, width)
    if scale < 1:
        image = mmcv.imrescale(image, scale)
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])
    uri = "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
    return uri, round(width * scale), round(height * scale), scale
