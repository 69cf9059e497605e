"""Finds annotations and images in a folder of COCO-format data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kd_det.errors import UserError

# What the two parts are called, and where their annotations lie: COCO's own layout, that of
# digits-coco, plain names, and Roboflow's export.
NAMES = {"train": ("train2017", "train"), "val": ("val2017", "val", "valid")}
ANNOTATIONS = (
    "annotations/instances_{}.json",
    "annotations/{}.json",
    "{}/_annotations.coco.json",
)
IMAGES = ("{}", "images/{}", "images", "")


class DataError(UserError, ValueError):
    """Data that cannot be found, or that lacks what training needs."""


@dataclass(frozen=True)
class Part:
    """One part of a data set.

    Args:
        annotations: The file, relative to the root.
        images: The folder in which its images lie, relative to the root; ``''`` for the root.
        count: Number of images.
        classes: Names in the order of the file, which is that of mmdet's labels.
        has_masks: Whether every annotation has a ``segmentation``.
    """

    annotations: str
    images: str
    count: int
    classes: tuple[str, ...]
    has_masks: bool


@dataclass(frozen=True)
class CocoFolder:
    """A folder with training and validation data.

    Args:
        root: The folder.
        train: What students learn from.
        val: What they are evaluated on.
        groups: Categories that name a group of classes and are none.
    """

    root: Path
    train: Part
    val: Part
    groups: tuple[str, ...] = ()


def find_coco_folder(root: Path) -> CocoFolder:
    """Annotations and images of both parts of ``root``, by the names that are usual.

    Raises:
        NotADirectoryError: If there is no such folder.
        DataError: If a part is absent or there are several; lists what was looked for and what is
            there. If the parts have different classes.
    """
    if not root.is_dir():
        raise NotADirectoryError(
            f"expected a folder of data in COCO format or a config of mmdet, found no {root}"
        )
    files = {part: _find_annotations(root, part) for part in NAMES}
    groups: tuple[str, ...] = ()
    parts = {}
    for part, (name, file) in files.items():
        parts[part], found = _read(root, name, file)
        groups = groups or found
    train, val = parts["train"], parts["val"]
    if train.classes != val.classes:
        raise DataError(
            "both parts need the same categories in the same order, found "
            f"{list(train.classes)} in {root / train.annotations} and {list(val.classes)} "
            f"in {root / val.annotations}"
        )
    return CocoFolder(root, train, val, groups)


def _find_annotations(root: Path, part: str) -> tuple[str, str]:
    """Name of a part and its annotation file."""
    looked = {pattern.format(name): name for name in NAMES[part] for pattern in ANNOTATIONS}
    found = [file for file in looked if (root / file).is_file()]
    if len(found) == 1:
        return looked[found[0]], found[0]
    if found:
        raise DataError(
            f"{root} has several annotation files for {part}: {', '.join(found)}; leave one, or "
            "give a config of mmdet that names it as --data"
        )
    there = sorted(str(f.relative_to(root)) for f in root.glob("**/*.json")) or ["no .json file"]
    more = f" and {len(there) - 12} more" if len(there) > 12 else ""
    raise DataError(
        f"{root} has no annotation file for {part}: looked for {', '.join(looked)}; found "
        f"{', '.join(there[:12])}{more}. Rename it, or give a config of mmdet as --data"
    )


def _read(root: Path, name: str, file: str) -> tuple[Part, tuple[str, ...]]:
    """A part and its groups of classes."""
    data = read_annotations(root / file)
    if not data["images"]:
        raise DataError(f"{root / file}: there are no images in it")
    first = str(data["images"][0].get("file_name"))
    looked = [pattern.format(name) for pattern in IMAGES]
    folders = [folder for folder in looked if (root / folder / first).is_file()]
    if not folders:
        places = ", ".join(str(root / folder / first) for folder in looked)
        raise DataError(f"{root / file} names the image {first}, which is at none of: {places}")
    classes, groups = _classes(data, root / file)
    # A mask may be polygons or run lengths; some exports write an empty list for none.
    masks = bool(data["annotations"]) and all(a.get("segmentation") for a in data["annotations"])
    return Part(file, folders[0], len(data["images"]), classes, masks), groups


def read_annotations(path: Path) -> dict[str, Any]:
    """The content of an annotation file.

    Raises:
        DataError: If it is not JSON in COCO's detection format.
    """
    try:
        data = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path}: expected JSON in COCO format: {error}") from error
    keys = ("images", "annotations", "categories")
    lacking = [key for key in keys if not isinstance(data, dict) or key not in data]
    if lacking:
        raise DataError(f"{path}: expected JSON in COCO format, found no {', '.join(lacking)}")
    return data


def _classes(data: Mapping[str, Any], path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the classes in the order of the file, and of those that are no classes.

    Roboflow puts the name of the project before the classes, as their supercategory.
    """
    categories = data["categories"]
    used = {annotation["category_id"] for annotation in data["annotations"]}
    above = {c.get("supercategory") for c in categories if c.get("supercategory") != c["name"]}
    groups = {
        c["id"]
        for c in categories
        if c["id"] not in used and c["name"] in above and c.get("supercategory") in (None, "none")
    }
    classes = tuple(str(c["name"]) for c in categories if c["id"] not in groups)
    twice = sorted({name for name in classes if classes.count(name) > 1})
    if twice or not classes:
        found = f"several called {', '.join(twice)}" if twice else "none"
        raise DataError(f"{path}: expected categories of different names, found {found}")
    return classes, tuple(str(c["name"]) for c in categories if c["id"] in groups)
