"""Check and repair annotation files in COCO's format: every id, image and key that mmdet reads.

mmdet and pycocotools take each entry for granted: an annotation whose category or image does not
exist is dropped, two images of one id share their boxes, and a missing key ends in a ``KeyError``
after the models were built.
"""

from __future__ import annotations

import json
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

from kd_det.datasets.coco import (
    KEYS,
    Annotations,
    DataError,
    Entry,
    Repair,
    describe_encoding,
    is_number,
    parse,
    refuse,
    split_categories,
)
from kd_det.datasets.faults import WARNING, Fault
from kd_det.datasets.images import check_images, find_images
from kd_det.datasets.looks import read_headers


def check_annotations(
    path: Path, images: Path, evaluated: bool = False, labelled: bool = True
) -> Annotations:
    """Read an annotation file, check all entries and images, and compute what can be computed.

    Args:
        path: The file, which is never written.
        images: The folder that each ``file_name`` is relative to.
        evaluated: Whether detections are compared with it by pycocotools.
        labelled: Whether it must have annotations; a test set may have none.

    Raises:
        DataError: If it is not in COCO's detection format, an entry lacks what cannot be computed,
            ids are unknown or not unique, or an image is missing or cannot be read.
        OSError: If it cannot be read.
    """
    raw = path.read_bytes()
    data = parse(path, raw, KEYS if labelled else ("images", "categories"))
    data.setdefault("annotations", [])
    found = Annotations(path, data, images)
    encoding = describe_encoding(raw)
    if encoding:
        found.repairs.append(Repair(encoding))
    check_entries(found, evaluated)
    check_images(found, read_headers(find_images(found)))
    if evaluated and labelled and not data["annotations"]:
        what = "there are no objects, so every mAP will be -1"
        found.warnings.append(Fault(str(path), what, 1, severity=WARNING))
    return found


def check_entries(found: Annotations, evaluated: bool = False) -> None:
    """Check all entries, and compute what can be computed; images are not looked for.

    Args:
        found: The annotations, whose data, repairs, warnings and faults are changed.
        evaluated: Whether detections are compared with it by pycocotools.

    Raises:
        DataError: If an entry is not valid, unless faults are collected; if there are no
            categories or no images, or several categories of one name.
    """
    _check_categories(found)
    _check_image_entries(found)
    _check_annotation_entries(found, evaluated)
    _require_names(found)


def _check_categories(found: Annotations) -> None:
    categories = found.data["categories"]
    if not categories:
        raise DataError(f"{found.path}: no categories in it")
    refuse(
        found, "categories", [c for c in categories if c.get("name") in (None, "")],
        "have no 'name'", "give each a name",
    )  # fmt: skip
    numbers = [c for c in found.data["categories"] if not isinstance(c["name"], str)]
    for category in numbers:
        category["name"] = str(category["name"])
    if numbers:
        found.repairs.append(Repair(f"{len(numbers)} names of categories from numbers to text"))
    _normalise_ids(found, "categories", "id")
    _require_unique(found, "categories")


def _check_image_entries(found: Annotations) -> None:
    if not found.data["images"]:
        raise DataError(f"{found.path}: no images in it")
    _normalise_ids(found, "images", "id")
    _require_unique(found, "images")
    nameless = [i for i in found.data["images"] if not _is_text(i.get("file_name"))]
    refuse(
        found, "images", nameless,
        "have no 'file_name'", "name the file of each",
    )  # fmt: skip


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _check_annotation_entries(found: Annotations, evaluated: bool) -> None:
    for key, kind in (("image_id", "images"), ("category_id", "categories")):
        _normalise_ids(found, "annotations", key)
        known = {entry["id"] for entry in found.data[kind]}
        refuse(
            found, "annotations", [a for a in found.data["annotations"] if a[key] not in known],
            f"have an unknown {key} (no such id in {kind})",
            "mmdet would drop them, and if ids are shifted by one, the others are wrong too: "
            f"correct {key}, or remove them",
        )  # fmt: skip
    _remove_repeated(found)
    _number_annotations(found, evaluated)
    _complete_fields(found)


def _require_names(found: Annotations) -> None:
    """Raise ``DataError`` if two classes have one name."""
    names = Counter(split_categories(found.data)[0])
    twice = sorted(name for name, count in names.items() if count > 1)
    if twice:
        raise DataError(
            f"{found.path}: expected categories of different names, found several called "
            f"{', '.join(twice)}"
        )


def _normalise_ids(found: Annotations, kind: str, key: str) -> None:
    """Let ids be integers, or text that is no number (on both sides of a reference)."""
    changed, invalid = 0, []
    for entry in found.data[kind]:
        value = entry.get(key)
        if type(value) is int:
            continue
        number = _whole_number(value)
        if number is not None:
            entry[key] = number
            changed += 1
        elif not (isinstance(value, str) and value):
            invalid.append(entry)
    refuse(found, kind, invalid, f"have no {key}, or one that is not valid", f"give each its {key}")
    if changed:
        found.repairs.append(Repair(f"{changed} {key} of {kind} from text to numbers"))


def _whole_number(value: Any) -> int | None:
    if isinstance(value, str) and value.strip().lstrip("-").isdecimal():
        return int(value)
    return int(value) if isinstance(value, float) and value.is_integer() else None


def _require_unique(found: Annotations, kind: str) -> None:
    """Entries that are the same in all may be repeated: pycocotools keeps one of each id."""
    first: dict[Any, Entry] = {}
    repeated = [e for e in found.data[kind] if first.setdefault(e["id"], e) != e]
    refuse(
        found, kind, repeated,
        f"have an id that another one has before them (id {repeated[0]['id']!r})"
        if repeated else "",
        "mmdet would put annotations of one on the other; give each an id of its own",
    )  # fmt: skip


def _remove_repeated(found: Annotations) -> None:
    """Remove annotations that are the same in all, with the id."""
    annotations = found.data["annotations"]
    if len({str(a.get("id")) for a in annotations}) < len(annotations):
        kept = list({json.dumps(a, sort_keys=True): a for a in annotations if "id" in a}.values())
        kept += [a for a in annotations if "id" not in a]
        if len(kept) < len(annotations):
            text = f"{len(annotations) - len(kept)} annotations removed that are there twice"
            found.repairs.append(Repair(text))
            found.data["annotations"] = kept


def _number_annotations(found: Annotations, evaluated: bool) -> None:
    """Number annotations from 1 where their ids cannot be used as they are."""
    annotations = found.data["annotations"]
    ids = [a["id"] if isinstance(a.get("id"), int) else None for a in annotations]
    required = True
    if None in ids:
        reason = "that were missing or text"
    elif len(set(ids)) < len(ids):
        reason = "that were not unique"
    elif evaluated and 0 in ids:
        # cocoeval.py keeps the id of what a detection matched, and takes 0 for no match.
        reason, required = "since pycocotools never matches the id 0", False
    else:
        return
    for number, annotation in enumerate(annotations, 1):
        annotation["id"] = number
    found.repairs.append(Repair(f"ids of annotations, {reason}", required))


def _complete_fields(found: Annotations) -> None:
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
            if all(map(is_number, box)):
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
        box = [min(x), min(y), max(x) - min(x), max(y) - min(y)]
        return box if all(map(is_number, box)) else None
    except (TypeError, ValueError):
        return None


def _complete_numbers(found: Annotations) -> None:
    """``area`` and ``iscrowd``."""
    area = crowd = 0
    for annotation in found.data["annotations"]:
        if not is_number(annotation.get("area")):
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
        number = None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if is_number(number) else None
