"""The result of every reader: the parts of a data set, each as entries of COCO's format.

COCO's format is what mmdet and pycocotools read, so it is kept in memory as well: whatever else a
file holds (masks, licences, crowds) stays. Readers of other formats list labelled images, and
:func:`build_parts` makes the entries.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kd_det.datasets.coco import DataError
from kd_det.datasets.faults import Fault

Entry = dict[str, Any]
SPLITS = ("train", "val", "test")
# What Roboflow puts between a photograph's name and the hash of one of its augmented versions.
AUGMENTED = re.compile(r"\.rf\.[0-9A-Za-z]+")


@dataclass
class Box:
    """An object.

    Args:
        name: Its class.
        corners: ``x1, y1, x2, y2`` in pixels.
        polygons: Its outline as ``x1, y1, x2, y2, ...``, where it is known.
        crowd: Whether it counts neither as found nor as missed.
    """

    name: str
    corners: Sequence[float]
    polygons: Sequence[Sequence[float]] = ()
    crowd: bool = False


@dataclass
class Labelled:
    """An image with its objects.

    Args:
        file_name: Relative to the root, or absolute.
        split: ``train``, ``val`` or ``test``; None where nothing says it.
        size: Width and height in pixels as the annotation has them; None for those of the image.
        boxes: Its objects.
    """

    file_name: str
    split: str | None
    size: tuple[int, int] | None = None
    boxes: list[Box] = field(default_factory=list)


@dataclass
class Part:
    """One part of a data set.

    Args:
        split: ``train``, ``val`` or ``test``; None where nothing says it.
        source: The file or folder of its annotations, relative to the root.
        data: ``images``, ``annotations`` and ``categories`` as in COCO's format.
        images: The folder, relative to the root, that each ``file_name`` is relative to.
        converted: Whether ``data`` differs from the file ``source``, so that training needs a copy.
    """

    split: str | None
    source: str
    data: dict[str, Any]
    images: str = ""
    converted: bool = True

    @property
    def count(self) -> int:
        """Number of images."""
        return len(self.data["images"])

    def select(self, split: str | None, images: Sequence[Entry]) -> Part:
        """The part with some of its images, and their annotations."""
        ids = {str(image.get("id")) for image in images}
        kept = [a for a in self.data["annotations"] if str(a.get("image_id")) in ids]
        data = {**self.data, "images": list(images), "annotations": kept}
        return Part(split, self.source, data, self.images)


@dataclass
class Reading:
    """The result of a reader, before it is divided into training and validation.

    Args:
        format: What it was recognised as, in words.
        parts: As they were found; with ``split`` None where nothing says it.
        notes: What was recognised and decided, in sentences.
        faults: What is wrong with the labels.
    """

    format: str
    parts: list[Part]
    notes: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


@dataclass
class DetectionSet:
    """A data set for detection, as it was found.

    Args:
        root: The folder, which is only read.
        format: What it was recognised as, in words.
        parts: By name; ``train`` and ``val`` are there, ``test`` may be.
        notes: What was recognised and decided, in sentences.
        faults: What its reader found wrong.
        division: Fraction, seed and names of the images to evaluate on; None unless images were
            divided here.
    """

    root: Path
    format: str
    parts: dict[str, Part]
    notes: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    division: dict[str, Any] | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in the order of the labels."""
        return tuple(str(c.get("name")) for c in self.parts["train"].data["categories"])


def build_parts(images: Sequence[Labelled], classes: Sequence[str], source: str) -> list[Part]:
    """The parts of labelled images, by their split; ids are from 1.

    Args:
        images: All of the data set.
        classes: Names in the order of their labels.
        source: What the labels were read from.
    """
    by_split: dict[str | None, list[Labelled]] = defaultdict(list)
    for image in images:
        by_split[image.split].append(image)
    return [Part(split, source, _entries(found, classes)) for split, found in by_split.items()]


def _entries(images: Sequence[Labelled], classes: Sequence[str]) -> dict[str, list[Entry]]:
    ids = {name: i for i, name in enumerate(classes, 1)}
    data: dict[str, list[Entry]] = dict(
        images=[],
        annotations=[],
        categories=[dict(id=i, name=name) for name, i in ids.items()],
    )
    for number, image in enumerate(images, 1):
        entry: Entry = dict(id=number, file_name=image.file_name)
        if image.size is not None:
            entry["width"], entry["height"] = image.size
        data["images"].append(entry)
        for box in image.boxes:
            x1, y1, x2, y2 = (round(float(value), 3) for value in box.corners)
            width, height = round(x2 - x1, 3), round(y2 - y1, 3)
            annotation: Entry = dict(
                id=len(data["annotations"]) + 1,
                image_id=number,
                category_id=ids[box.name],
                bbox=[x1, y1, width, height],
                area=round(width * height, 3),
                iscrowd=int(box.crowd),
            )
            if box.polygons and not box.crowd:
                annotation["segmentation"] = [[round(float(v), 2) for v in p] for p in box.polygons]
            data["annotations"].append(annotation)
    return data


def box_around(points: Sequence[float]) -> tuple[float, float, float, float]:
    """Corners ``x1, y1, x2, y2`` of the box around ``x1, y1, x2, y2, ...``."""
    return min(points[0::2]), min(points[1::2]), max(points[0::2]), max(points[1::2])


def divide(part: Part, fraction: float, seed: int) -> tuple[Part, Part, dict[str, Any]]:
    """Divide a part into one to learn from and one to evaluate on.

    Which image goes where depends on the names and the seed alone, not on their order. Images that
    Roboflow made of one photograph (``photo_jpg.rf.<hash>.jpg``) stay together.

    Returns:
        Both parts, and what to write down: ``fraction``, ``seed`` and ``val``, the names.

    Raises:
        DataError: If there are fewer than two photographs, or ``fraction`` is not one.
    """
    if not 0 < fraction < 1:
        raise DataError(f"expected --val-split between 0 and 1, as 0.2, found {fraction:g}")
    photographs: dict[str, list[Entry]] = defaultdict(list)
    for image in part.data["images"]:
        name = str(image.get("file_name"))
        photograph, *augmented = AUGMENTED.split(posixpath.basename(name))
        photographs[photograph if augmented else name].append(image)
    if len(photographs) < 2:
        raise DataError(
            f"{part.source} has {part.count} image{'s' if part.count != 1 else ''}, and two are "
            "needed, one to learn from and one to evaluate on: add images, or name both parts "
            "with --train-ann and --val-ann"
        )
    order = sorted(photographs, key=lambda p: hashlib.sha256(f"{seed}/{p}".encode()).digest())
    wanted = fraction * part.count
    chosen: list[Entry] = list(photographs[order[0]])
    for photograph in order[1:-1]:
        if len(chosen) + len(photographs[photograph]) / 2 > wanted:
            break
        chosen += photographs[photograph]
    taken = {id(image) for image in chosen}
    train = [image for image in part.data["images"] if id(image) not in taken]
    val = [image for image in part.data["images"] if id(image) in taken]
    written = dict(fraction=fraction, seed=seed, val=sorted(str(i.get("file_name")) for i in val))
    return part.select("train", train), part.select("val", val), written


def relabel(parts: Sequence[Part], classes: Sequence[str], split: str) -> Part:
    """One part of several, with other classes and new ids.

    Args:
        parts: Whose categories are among ``classes``.
        classes: Names in the order of their labels.
        split: What it is called.
    """
    numbers = {name: number for number, name in enumerate(classes, 1)}
    data: dict[str, list[Entry]] = dict(
        images=[], annotations=[], categories=[dict(id=i, name=n) for n, i in numbers.items()]
    )
    for part in parts:
        names = {c["id"]: c["name"] for c in part.data["categories"]}
        images, boxes = len(data["images"]), len(data["annotations"])
        data["images"] += [{**i, "id": i["id"] + images} for i in part.data["images"]]
        data["annotations"] += [
            {
                **box,
                "id": box["id"] + boxes,
                "image_id": box["image_id"] + images,
                "category_id": numbers[names[box["category_id"]]],
            }
            for box in part.data["annotations"]
        ]
    return Part(split, ", ".join(dict.fromkeys(p.source for p in parts)), data)
