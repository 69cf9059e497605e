"""Inspect a data set before training: what it holds, and all that is wrong with it."""

from __future__ import annotations

import hashlib
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from kd_det.datasets.coco import Annotations, DataError
from kd_det.datasets.coco_entries import check_entries
from kd_det.datasets.faults import ERROR, REPAIRED, WARNING, Fault
from kd_det.datasets.formats import DetectionSet, Part
from kd_det.datasets.images import check_images, ends_outside, find_images
from kd_det.datasets.looks import Look, look_at_all

# mmdet's usual scale: the longer and the shorter side that an image is resized within.
SCALE = (1333, 800)
# Sides in pixels of a cell of the finest level of most dense detectors, and of two-stage ones.
CELLS = (8, 4)
# A class with fewer boxes to learn from is named.
FEW_BOXES = 10


@dataclass
class PartReport:
    """Contents of one part.

    Args:
        images: Number of images.
        boxes: Number of boxes.
        empty: Number of images without a box.
        crowds: Number of boxes that count neither as found nor as missed.
        by_class: Boxes by class, in the order of the labels.
        images_by_class: Images that show it, by class.
        widths: Least, median and largest width of its images, in pixels.
        heights: Likewise.
        sides: Quartiles of the square roots of the boxes' areas at the scale, in pixels.
        most: Most boxes of an image.
        tiny: Boxes smaller than a cell, by its side in pixels, at the scale.
    """

    images: int
    boxes: int
    empty: int
    crowds: int
    by_class: dict[str, int]
    images_by_class: dict[str, int]
    widths: tuple[int, int, int]
    heights: tuple[int, int, int]
    sides: tuple[float, float, float]
    most: int
    tiny: dict[int, int]


@dataclass
class Inspection:
    """Contents of a data set, and its faults.

    Args:
        root: The folder.
        format: What it was recognised as.
        classes: Names in the order of the labels.
        scale: Longer and shorter side that images are resized within, for ``tiny`` and ``sides``.
        parts: By name.
        notes: What was recognised and decided, in sentences.
        faults: All that is wrong, the worst first.
        annotations: Of each part, as they were checked and completed.
        images_sha256: Digest of the content of all images.
    """

    root: Path
    format: str
    classes: tuple[str, ...]
    scale: tuple[int, int]
    parts: dict[str, PartReport]
    notes: list[str]
    faults: list[Fault]
    annotations: dict[str, Annotations] = field(default_factory=dict, repr=False)
    images_sha256: str = ""

    @property
    def errors(self) -> list[Fault]:
        """Faults that keep a training from starting."""
        return [fault for fault in self.faults if fault.severity == ERROR]

    def as_dict(self) -> dict[str, Any]:
        """All but the annotations, for JSON."""
        return dict(
            root=str(self.root),
            format=self.format,
            classes=list(self.classes),
            scale=list(self.scale),
            notes=self.notes,
            parts={name: asdict(part) for name, part in self.parts.items()},
            faults=[fault.as_dict() for fault in self.faults],
        )


def inspect(
    found: DetectionSet, scale: tuple[int, int] = SCALE, kept: Path | None = None
) -> Inspection:
    """Check all entries and all images of a data set.

    Args:
        found: The data set; its entries are completed.
        scale: Longer and shorter side that a detector's images are resized within.
        kept: File in which what was seen of the images is kept for the next time.
    """
    checked = {name: _checked(found, part) for name, part in found.parts.items()}
    paths = {name: find_images(entries) for name, entries in checked.items()}
    looks = look_at_all(sorted({path for named in paths.values() for path in named}), kept)
    faults = list(found.faults)
    for name, entries in checked.items():
        check_images(entries, looks)
        told = [*(entries.faults or ()), *entries.warnings, *_repairs(entries)]
        where = f"{name} ({found.parts[name].source})"
        told = [replace(fault, where=where) for fault in (*told, *_box_faults(entries))]
        if name == "test":  # nothing is trained or evaluated on it
            told = [replace(f, severity=WARNING) if f.severity == ERROR else f for f in told]
        faults += told
    faults += _copies(paths, looks)
    parts = {name: _report(a, found.classes, scale) for name, a in checked.items()}
    faults += _class_faults(parts, found.classes)
    order = [ERROR, WARNING, REPAIRED]
    faults.sort(key=lambda fault: order.index(fault.severity))
    digest = hashlib.sha256("".join(sorted(x.digest for x in looks.values())).encode())
    return Inspection(
        found.root, found.format, found.classes, scale, parts, found.notes, faults, checked,
        digest.hexdigest(),
    )  # fmt: skip


def _checked(found: DetectionSet, part: Part) -> Annotations:
    """A part's entries, completed, with what is wrong with them."""
    faults: list[Fault] = []
    source = found.root / part.source
    entries = Annotations(source, part.data, found.root / part.images, faults=faults)
    try:
        check_entries(entries, evaluated=part.split != "train")
    except DataError as error:
        where, _, what = str(error).partition(": ")
        faults.append(Fault(where, what or where, 1))
        # Without images or categories, nothing else can be checked.
        entries.data = dict(part.data, images=[], annotations=[], categories=[])
    return entries


def _repairs(found: Annotations) -> Iterator[Fault]:
    if found.repairs:
        text = f"computed or repaired: {found.describe_repairs()}"
        remedy = "training reads a repaired copy"
        yield Fault(str(found.path), text, len(found.repairs), (), remedy, REPAIRED)


def _box_faults(found: Annotations) -> Iterator[Fault]:
    """Faults of a part's boxes that mmdet does not report."""
    images = {image["id"]: image for image in found.data["images"]}
    flat, outside, beyond = [], [], []
    seen: Counter[tuple[Any, ...]] = Counter()
    for box in found.data["annotations"]:
        image = images[box["image_id"]]
        x, y, w, h = box["bbox"]
        item = f"{image['file_name']}: id {box['id']}, {[round(v, 1) for v in box['bbox']]}"
        seen[box["image_id"], box["category_id"], x, y, w, h] += 1
        width, height = image.get("width"), image.get("height")
        if w < 1 or h < 1:
            flat.append(item)
        elif width and height and (x >= width or y >= height or x + w <= 0 or y + h <= 0):
            outside.append(item)
        elif width and height and ends_outside(box["bbox"], width, height):
            beyond.append(item)
    where, total = str(found.path), len(found.data["annotations"])
    learning = "mmdet leaves them out in training, and counts them as missed in evaluation"
    for items, what, remedy in (
        (flat, "have less than a pixel of width or height", f"{learning}: remove them"),
        (outside, "lie outside their image", f"{learning}: correct or remove them"),
        (beyond, "end outside their image", "check that they are for images of this size"),
    ):
        if items:
            text = f"{len(items)} of {total} boxes {what}"
            yield Fault(where, text, len(items), tuple(items), remedy, WARNING)
    twice = [key for key, count in seen.items() if count > 1]
    again = [f"{images[key[0]]['file_name']}: {list(key[2:])}" for key in twice]
    if again:
        text = f"{len(again)} boxes are there several times, in the same image and class"
        yield Fault(where, text, len(again), tuple(again), "remove the repetitions", WARNING)


def _copies(paths: Mapping[str, Sequence[str]], looks: Mapping[str, Look]) -> Iterator[Fault]:
    """Images that are the same file in two parts, or twice in one."""
    places: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name, named in paths.items():
        for path in named:
            if looks[path].digest:
                places[looks[path].digest][name].append(path)
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        pairs = [(p[first][0], p[second][0]) for p in places.values() if first in p and second in p]
        if pairs:
            yield Fault(
                f"{first} and {second}",
                f"{len(pairs)} images are the same file in both, so the evaluation is too good",
                len(pairs),
                tuple(" = ".join(pair) for pair in pairs),
                "remove them from one",
                WARNING,
            )
    for name in paths:
        twice = [p[name] for p in places.values() if len(p.get(name, ())) > 1]
        if twice:
            yield Fault(
                name,
                f"{len(twice)} images are there several times under different names or ids",
                len(twice),
                tuple(" = ".join(same) for same in twice),
                "remove the copies",
                WARNING,
            )


def _class_faults(parts: Mapping[str, PartReport], classes: Sequence[str]) -> Iterator[Fault]:
    """Classes that cannot be learnt or evaluated."""
    train, val = parts["train"].by_class, parts["val"].by_class
    never = [name for name in classes if not train.get(name)]
    rare = [f"{name} ({train[name]})" for name in classes if 0 < train.get(name, 0) < FEW_BOXES]
    unseen = [name for name in classes if train.get(name) and not val.get(name)]
    if not parts["train"].boxes:
        if parts["train"].images:
            what = "there are no boxes at all to learn from, and mmdet leaves out such images"
            remedy = "add some, or name their file with --train-ann"
            yield Fault("train", what, 1, remedy=remedy, severity=WARNING)
        never = []
    if parts["val"].images and not parts["val"].boxes:
        what = "there are no boxes at all to evaluate on, so every mAP will be -1"
        yield Fault("val", what, 1, remedy="add some", severity=WARNING)
        unseen = []
    for items, where, what, remedy in (
        (never, "train", "have no box to learn from", "add some, or remove the classes"),
        (rare, "train", f"have fewer than {FEW_BOXES} boxes to learn from", "add some"),
        (unseen, "val", "have no box to evaluate on, and count in no mAP", "add some"),
    ):
        if items:
            text = f"{len(items)} of {len(classes)} classes {what}"
            yield Fault(where, text, len(items), tuple(items), remedy, WARNING)


def _report(found: Annotations, classes: Sequence[str], scale: tuple[int, int]) -> PartReport:
    images, boxes = found.data["images"], found.data["annotations"]
    names = {category["id"]: str(category["name"]) for category in found.data["categories"]}
    factors = {image["id"]: _factor(image, scale) for image in images}
    by_class: Counter[str] = Counter()
    shown: dict[str, set[Any]] = defaultdict(set)
    by_image = Counter(box["image_id"] for box in boxes)
    sides = []
    for box in boxes:
        name = names.get(box["category_id"], "")
        by_class[name] += 1
        shown[name].add(box["image_id"])
        _, _, w, h = box["bbox"]
        sides.append((max(w, 0) * max(h, 0)) ** 0.5 * factors[box["image_id"]])
    return PartReport(
        images=len(images),
        boxes=len(boxes),
        empty=len(images) - len(by_image),
        crowds=sum(bool(box["iscrowd"]) for box in boxes),
        by_class={name: by_class[name] for name in classes},
        images_by_class={name: len(shown[name]) for name in classes},
        widths=_spread([image.get("width") or 0 for image in images]),
        heights=_spread([image.get("height") or 0 for image in images]),
        sides=_quartiles(sides),
        most=max(by_image.values(), default=0),
        tiny={cell: sum(side < cell for side in sides) for cell in CELLS},
    )


def _factor(image: Mapping[str, Any], scale: tuple[int, int]) -> float:
    """Factor by which mmdet resizes an image with ``keep_ratio``."""
    width, height = image.get("width") or 0, image.get("height") or 0
    if not width or not height:
        return 1.0
    return float(min(max(scale) / max(width, height), min(scale) / min(width, height)))


def _spread(values: Sequence[float]) -> tuple[int, int, int]:
    if not values:
        return 0, 0, 0
    return int(min(values)), int(statistics.median(values)), int(max(values))


def _quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    if len(values) < 2:
        value = round(float(values[0]), 1) if values else 0.0
        return value, value, value
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return round(low, 1), round(middle, 1), round(high, 1)
