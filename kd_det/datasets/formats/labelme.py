"""LabelMe: a .json file of shapes for each image, beside it."""

from __future__ import annotations

import json
import math
import posixpath
from collections import Counter
from collections.abc import Sequence
from typing import Any

from kd_det.datasets.coco import DataError
from kd_det.datasets.faults import WARNING, Fault
from kd_det.datasets.formats.detection_set import Box, Labelled, Reading, box_around, build_parts
from kd_det.datasets.formats.tree import Tree, few, split_of_folder, stem

SKIPPED = ("__ignore__", "_background_")


def find(tree: Tree) -> str | None:
    """The first annotation file of a folder in LabelMe's format."""
    for path in tree.with_suffix(".json")[:20]:
        with open(tree.root / path, "rb") as file:  # an image may be embedded after the shapes
            start = file.read(1 << 16)
        if b'"shapes"' in start and b'"annotations"' not in start:
            return path
    return None


def read(tree: Tree, source: str, images: str | None = None) -> Reading:
    """Read a folder in LabelMe's format.

    Args:
        tree: Its files.
        source: One of its annotation files, or the folder of those to read.
        images: The folder of images, if the user named it.

    Raises:
        DataError: If the images of all annotations are missing, or nothing is labelled.
    """
    files = tree.annotations(".json", source)
    found: list[Labelled] = []
    wrong: list[str] = []
    skipped: Counter[str] = Counter()
    missing = embedded = 0
    for path in files:
        try:
            content = json.loads((tree.root / path).read_bytes())
        except ValueError:
            wrong.append(path)
            continue
        if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
            continue
        split = split_of_folder(path)
        named = str(content.get("imagePath") or "")
        image = _image_of(path, named, tree, images, split)
        missing += image is None
        embedded += image is None and bool(content.get("imageData"))
        labelled = Labelled(image or named or f"{stem(path)}.jpg", split, _size(content))
        for shape in filter(lambda each: isinstance(each, dict), content["shapes"]):
            box = _box(shape)
            if box is not None:
                labelled.boxes.append(box)
            elif str(shape.get("label")) not in SKIPPED:
                skipped[str(shape.get("shape_type"))] += 1
        found.append(labelled)
    if not found or missing == len(found):
        remedy = "put them beside the annotations, or name their folder with --images"
        if embedded:
            remedy = "they are inside the .json files: save them as files"
        raise DataError(
            f"{tree.root} has {len(found)} annotations in LabelMe's format and none of their "
            f"images; {remedy}"
        )
    classes = sorted({box.name for image in found for box in image.boxes})
    if not classes:
        raise DataError(f"{tree.root} has {len(found)} annotations in LabelMe's format, no objects")
    faults = []
    if wrong:
        faults.append(
            Fault("LabelMe", f"{len(wrong)} .json files are not valid JSON", len(wrong),
                  tuple(wrong), "correct or remove them")
        )  # fmt: skip
    if skipped:
        kinds = few(f"{count} {kind}" for kind, count in skipped.items())
        faults.append(
            Fault("LabelMe", f"shapes without an area are left out: {kinds}", sum(skipped.values()),
                  severity=WARNING)
        )  # fmt: skip
    notes = ["classes are in the order of the alphabet, since LabelMe's format has no other"]
    parts = build_parts(found, classes, "the .json files")
    return Reading(f"LabelMe ({len(found)} .json files)", parts, notes, faults)


def _image_of(
    path: str, named: str, tree: Tree, images: str | None, split: str | None
) -> str | None:
    folder, base = posixpath.split(stem(path))
    above = posixpath.dirname(folder)
    near = [*([] if images is None else [images]), folder, f"{above}/images" if above else "images"]
    found = tree.find_image(named, near, split) if named else None
    return found or tree.find_image(f"{base}.jpg", near, split, any_suffix=True)


def _size(content: dict[str, Any]) -> tuple[int, int] | None:
    width, height = content.get("imageWidth"), content.get("imageHeight")
    if isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0:
        return width, height
    return None


def _box(shape: dict[str, Any]) -> Box | None:
    """The object of a shape; None for lines, points and areas to ignore."""
    label, points = str(shape.get("label")), _numbers(shape.get("points"))
    kind = shape.get("shape_type") or "polygon"
    if label in SKIPPED or len(points) < 4:
        return None
    if kind == "circle":  # its center and a point on it
        x, y, x2, y2 = points[:4]
        radius = math.hypot(x2 - x, y2 - y)
        return Box(label, (x - radius, y - radius, x + radius, y + radius))
    if kind == "rectangle" or kind == "mask":
        return Box(label, box_around(points))
    if kind in ("polygon", "rotation", "oriented_rectangle") and len(points) >= 6:
        return Box(label, box_around(points), [points])
    return None


def _numbers(points: Any) -> Sequence[float]:
    try:
        return [float(value) for point in points for value in point]
    except (TypeError, ValueError):
        return []
