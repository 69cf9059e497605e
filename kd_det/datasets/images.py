"""Look for the images that an annotation file names, and read their sizes by their headers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from kd_det.datasets.coco import Annotations, DataError, Repair

ORIENTATION = 0x0112
# EXIF orientations that change width and height for one another.
TURNED = (5, 6, 7, 8)
THREADS = 8
# How many names stand in a message.
NAMED = 3


@dataclass(frozen=True)
class Size:
    """Size of an image in pixels as mmcv reads it, and whether its EXIF orientation turned it."""

    width: int
    height: int
    turned: bool = False


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


def read_size(path: str) -> Size | None:
    """Size of an image by its header; None if it cannot be read."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = bool(image.info.get("exif")) and image.getexif().get(ORIENTATION) in TURNED
    except Exception:  # Pillow has an exception for each format; what counts is whether mmcv can
        return _decoded_size(path)
    return Size(height, width, True) if turned else Size(width, height)


def _decoded_size(path: str) -> Size | None:
    """Size of an image that only OpenCV may know."""
    try:
        data = np.fromfile(path, dtype=np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except (OSError, cv2.error):
        return None
    return None if image is None else Size(image.shape[1], image.shape[0])


def check_images(found: Annotations, folders: Sequence[Path]) -> None:
    """Look for all images, and compare their sizes with what the file says.

    Args:
        found: The annotations; its ``images`` is set to the folder.
        folders: Where images may lie; the one that has most of them is taken.

    Raises:
        DataError: If an image is missing or cannot be read.
    """
    images = found.data["images"]
    names = [image["file_name"] for image in images]
    spellings = {folder: find_names(folder, names) for folder in folders}
    found.images = max(folders, key=lambda folder: sum(n is not None for n in spellings[folder]))
    missing = [n for n, there in zip(names, spellings[found.images]) if there is None]
    if missing:
        places = ", ".join(
            str(f) for f in (folders if len(missing) == len(images) else [found.images])
        )
        raise DataError(
            f"{found.path}: {len(missing)} of {len(images)} images are missing in {places}: "
            f"{_few(missing)}; add them, or remove them and their annotations from the file"
        )
    renamed = 0
    for image, name in zip(images, spellings[found.images]):
        renamed += name != image["file_name"]
        image["file_name"] = name
    if renamed:
        found.repairs.append(Repair(f"\\ to / in {renamed} file names"))
    _check_sizes(found, found.images)


def _check_sizes(found: Annotations, folder: Path) -> None:
    images = found.data["images"]
    paths = {image["file_name"]: str(folder / image["file_name"]) for image in images}
    with ThreadPoolExecutor(THREADS) as pool:
        sizes = dict(zip(paths.values(), pool.map(read_size, paths.values())))
    unreadable = [path for path in paths.values() if sizes[path] is None]
    if unreadable:
        raise DataError(
            f"{found.path}: failed to load image{'s' if len(unreadable) > 1 else ''} "
            f"{_few(unreadable)}: not an image, or damaged ({len(unreadable)} of {len(images)}); "
            "replace them, or remove them and their annotations from the file"
        )
    computed = 0
    turned: list[str] = []
    other: list[str] = []
    for image in images:
        size = sizes[paths[image["file_name"]]]
        assert size is not None
        said = (image.get("width"), image.get("height"))
        if not all(type(value) in (int, float) and value > 0 for value in said):
            image["width"], image["height"] = size.width, size.height
            computed += 1
        elif said != (size.width, size.height):
            as_stored = size.turned and said == (size.height, size.width)
            (turned if as_stored else other).append(image["file_name"])
    if computed:
        found.repairs.append(Repair(f"{computed} width and height from the images"))
    if turned:
        found.warnings.append(
            f"{found.path}: mmcv turns {len(turned)} of {len(images)} images by their EXIF "
            f"orientation, and the file has the size before that: {_few(turned)}. If the boxes are "
            "for it too, set color_type='color_ignore_orientation' in LoadImageFromFile"
        )
    if other:
        found.warnings.append(
            f"{found.path}: {len(other)} of {len(images)} images have another size than the file "
            f"says: {_few(other)}. Are the boxes for the images as they are now?"
        )


def _few(names: Iterable[str]) -> str:
    shown = list(names)
    more = f" and {len(shown) - NAMED} more" if len(shown) > NAMED else ""
    return ", ".join(shown[:NAMED]) + more
