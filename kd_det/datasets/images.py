"""Check the images that an annotation file names: that they are there and whole, and their size."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from kd_det.datasets.coco import Annotations, Repair, is_number, refuse
from kd_det.datasets.faults import WARNING, Fault
from kd_det.datasets.looks import DAMAGED, MISSING, UNREADABLE, Look

# How far beyond the border a box may end, in pixels, by rounding.
BORDER = 1.0


def find_names(folder: Path, names: Iterable[str]) -> list[str | None]:
    """The names as files under ``folder`` have them, with ``/`` for ``\\``; None without a file.

    Each folder is listed once, instead of a question for each file.
    """

    @cache
    def listed(path: str) -> set[str]:
        try:
            return set(os.listdir(path or "."))
        except OSError:
            return set()

    def exists(name: str) -> bool:
        parent, last = os.path.split(os.path.join(folder, name))
        return last in listed(parent)

    return [next(filter(exists, (name, name.replace("\\", "/"))), None) for name in names]


def find_images(found: Annotations) -> list[str]:
    """Look for all images, and return the paths of those that are there.

    Raises:
        DataError: If an image is missing, unless faults are collected.
    """
    missing, renamed = [], 0
    images = found.data["images"]
    for image, name in zip(images, find_names(found.images, [i["file_name"] for i in images])):
        if name is None:
            missing.append(image)
        elif name != image["file_name"]:
            image["file_name"] = name
            renamed += 1
    refuse(
        found, "images", missing, f"are missing in {found.images}",
        "add them, or remove them and their annotations from the file",
        [image["file_name"] for image in missing],
    )  # fmt: skip
    if renamed:
        found.repairs.append(Repair(f"\\ to / in {renamed} file names"))
    return [image_path(found, image) for image in found.data["images"]]


def image_path(found: Annotations, image: Mapping[str, Any]) -> str:
    """The path of an image's file."""
    return os.path.join(found.images, image["file_name"])


def check_images(found: Annotations, looks: Mapping[str, Look]) -> None:
    """Refuse images that cannot be read, and compare the others' sizes with what the file says.

    Args:
        found: The annotations; ``width`` and ``height`` are set where they are missing.
        looks: What was seen of each image, by its path.

    Raises:
        DataError: If an image cannot be read, unless faults are collected.
    """
    seen = {image["id"]: looks[image_path(found, image)] for image in found.data["images"]}
    total = len(seen)
    # Of files that are listed.
    lost = [i for i in found.data["images"] if seen[i["id"]].fault == MISSING]
    refuse(
        found, "images", lost, "are links that lead nowhere",
        "correct them, or remove them and their annotations from the file",
        [image_path(found, image) for image in lost],
    )  # fmt: skip
    unreadable = [i for i in found.data["images"] if seen[i["id"]].fault == UNREADABLE]
    refuse(
        found, "images", unreadable, "failed to load: not an image, or cut off",
        "replace them, or remove them and their annotations from the file",
        [image_path(found, image) for image in unreadable],
    )  # fmt: skip

    def warn(images: Sequence[Mapping[str, Any]], what: str, remedy: str, sizes: bool) -> None:
        items = tuple(
            f"{i['file_name']}: {i['width']}x{i['height']}, not "
            f"{seen[i['id']].width}x{seen[i['id']].height}" if sizes else str(i["file_name"])
            for i in images
        )  # fmt: skip
        if items:
            text = f"{len(items)} of {total} images {what}"
            found.warnings.append(Fault(str(found.path), text, len(items), items, remedy, WARNING))

    warn(
        [i for i in found.data["images"] if seen[i["id"]].fault == DAMAGED],
        "are damaged or cut off, and are read in part", "replace them", sizes=False,
    )  # fmt: skip
    computed = 0
    turned: list[dict[str, Any]] = []
    other: list[dict[str, Any]] = []
    for image in found.data["images"]:
        look, said = seen[image["id"]], (image.get("width"), image.get("height"))
        if not all(is_number(value) and value > 0 for value in said):
            image["width"], image["height"] = look.width, look.height
            computed += 1
        elif said != (look.width, look.height):
            as_stored = look.turned and said == (look.height, look.width)
            (turned if as_stored else other).append(image)
    if computed:
        found.repairs.append(Repair(f"{computed} width and height from the images"))
    warn(
        other, "have another size than the annotations say",
        "check that the boxes are for the images as they are now", sizes=True,
    )  # fmt: skip
    warn(
        turned,
        "are turned by mmcv, for their EXIF orientation, and the annotations have the size before "
        f"that ({_fit(found, turned)})",
        "if the boxes are for the stored images, save these without EXIF, or set "
        "color_type='color_ignore_orientation' in LoadImageFromFile",
        sizes=False,
    )


def ends_outside(box: Sequence[float], width: float, height: float) -> bool:
    """Whether a box ``[x, y, w, h]`` ends outside an image, by more than rounding."""
    x, y, w, h = box
    return min(x, y) < -BORDER or x + w > width + BORDER or y + h > height + BORDER


def _fit(found: Annotations, turned: Sequence[Mapping[str, Any]]) -> str:
    """Which of both orientations the boxes are for, as far as they tell."""
    sizes = {i["id"]: (i["height"], i["width"]) for i in turned}  # as mmcv reads them
    beyond = {
        a["image_id"]
        for a in found.data["annotations"]
        if a["image_id"] in sizes and ends_outside(a["bbox"], *sizes[a["image_id"]])
    }
    if not beyond:
        return "all of their boxes fit both ways"
    return f"boxes of {len(beyond)} do not fit the turned image, so they are for the stored one"
