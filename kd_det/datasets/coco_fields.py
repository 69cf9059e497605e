"""Compute the keys of annotations that can be computed: boxes, areas, crowd flags."""

from __future__ import annotations

from itertools import chain
from typing import Any

from kd_det.datasets.coco import Annotations, Repair, refuse


def complete_fields(found: Annotations) -> None:
    """Compute ``bbox``, ``area`` and ``iscrowd`` where they are missing or text.

    Raises:
        DataError: If there is neither a box of four numbers nor a polygon.
    """
    flat = [a for a in found.data["annotations"] if _is_flat(a.get("segmentation"))]
    for annotation in flat:
        annotation["segmentation"] = [annotation["segmentation"]]
    if flat:
        found.repairs.append(Repair(f"{len(flat)} polygons put into a list", required=False))
    _complete_boxes(found)
    _complete_numbers(found)


def _is_flat(segmentation: Any) -> bool:
    is_list = isinstance(segmentation, list) and bool(segmentation)
    return is_list and isinstance(segmentation[0], (int, float))


def _complete_boxes(found: Annotations) -> None:
    wrong, text, computed = [], 0, 0
    for annotation in found.data["annotations"]:
        box = annotation.get("bbox")
        if isinstance(box, list) and len(box) == 4:
            if all(type(value) in (int, float) for value in box):
                continue
            numbers = [_number(value) for value in box]
            if None not in numbers:
                annotation["bbox"] = numbers
                text += 1
                continue
        around = _box_around(annotation.get("segmentation"))
        if around is None:
            wrong.append(annotation)
        else:
            annotation["bbox"] = around
            computed += 1
    refuse(
        found, "annotations", wrong, "have no 'bbox' of four numbers",
        "expected [x, y, width, height] in pixels, or polygons as 'segmentation'",
    )  # fmt: skip
    if text:
        found.repairs.append(Repair(f"{text} bbox from text to numbers"))
    if computed:
        found.repairs.append(Repair(f"{computed} bbox from polygons"))


def _box_around(segmentation: Any) -> list[float] | None:
    """Box ``[x, y, w, h]`` around polygons."""
    if not isinstance(segmentation, list) or not segmentation:
        return None
    try:
        x = [float(value) for value in chain.from_iterable(p[0::2] for p in segmentation)]
        y = [float(value) for value in chain.from_iterable(p[1::2] for p in segmentation)]
        return [min(x), min(y), max(x) - min(x), max(y) - min(y)]
    except (TypeError, ValueError):
        return None


def _complete_numbers(found: Annotations) -> None:
    """``area`` and ``iscrowd``."""
    area = crowd = 0
    for annotation in found.data["annotations"]:
        if type(annotation.get("area")) not in (int, float):
            number = _number(annotation.get("area"))
            _, _, width, height = annotation["bbox"]
            annotation["area"] = width * height if number is None else number
            area += 1
        if not isinstance(annotation.get("iscrowd"), int):
            annotation["iscrowd"] = int(_number(annotation.get("iscrowd")) or 0)
            crowd += 1
    if area:
        found.repairs.append(Repair(f"{area} area, as width x height of the box or from text"))
    if crowd:
        found.repairs.append(Repair(f"{crowd} iscrowd, as 0 or from text", required=False))


def _number(value: Any) -> float | None:
    try:
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None
