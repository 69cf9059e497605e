"""Find YOLO's images and labels: by ``data.yaml``, by lists, or by the names of folders."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kd_det.datasets.coco import DataError
from kd_det.datasets.formats.text import read_text
from kd_det.datasets.formats.tree import Tree, is_image, join, split_of_folder, stem

SPLIT_KEYS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass
class Images:
    """Images by split, as paths relative to the root or absolute, and their notes."""

    paths: dict[str, str | None] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def listed_images(tree: Tree, source: str, settings: dict[str, Any]) -> Images:
    """The images of the folders, or lists, that ``data.yaml`` names."""
    found = Images()
    nowhere, again = [], 0
    for key, split in SPLIT_KEYS.items():
        value = settings.get(key)
        for entry in value if isinstance(value, list) else [value]:
            if not entry:
                continue
            place = _place(tree, source, str(settings.get("path") or ""), str(entry))
            if place is None:
                nowhere.append(f"{key}: {entry}")
                continue
            for image in _images_at(tree, place):
                again += found.paths.setdefault(image, split) != split
    if again:
        found.notes.append(f"{again} images are listed for several parts, and count for the first")
    if nowhere and not found.paths:
        # The names of the folders are enough, although the paths of the file are wrong.
        found.paths = {image: split_of_folder(image) for image in tree.images}
        if not any(label_of(image, tree) for image in found.paths):
            raise DataError(
                f"{tree.root / source}: nothing lies where it says ({'; '.join(nowhere)}), and no "
                f"images with labels lie in {tree.root}; correct its paths, or give --data the "
                "folder that has images/ and labels/"
            )
    if nowhere:
        found.notes.append(
            f"{source} names folders that are not there ({'; '.join(nowhere)})"
            + ("; parts are taken from the names of the folders" if found.paths else "")
        )
    return found


def _place(tree: Tree, source: str, base: str, entry: str) -> Path | None:
    """Find a folder or list of ``data.yaml``, as tools write it or after it was moved.

    Roboflow writes ``../train/images`` for ``train/images``; a path of another machine is looked
    for by its end.
    """
    here = (tree.root / source).parent
    entry, base = entry.replace("\\", "/"), base.replace("\\", "/")
    for start in (here / base, here, tree.root):
        if (start / entry).exists():
            return start / entry
    parts = [p for p in re.sub(r"^[A-Za-z]:", "", entry).split("/") if p not in ("", ".", "..")]
    for first in range(len(parts)):
        for start in (here / base, here, tree.root):
            place = start.joinpath(*parts[first:])
            if place.exists():
                return place
    return None


def _images_at(tree: Tree, place: Path) -> list[str]:
    """Images under a folder, or of a list of images."""
    if place.is_file():
        lines = [line.strip() for line in read_text(place).splitlines() if line.strip()]
        folder = _relative(tree, place.parent)
        found = []
        for line in lines:
            near = [] if posixpath.isabs(folder) else [folder, ""]
            path = tree.find_image(line, near) if near else None
            found.append(path or str((place.parent / line).absolute()))
        return found
    folder = _relative(tree, place)
    if not posixpath.isabs(folder):
        return [i for i in tree.images if folder == "" or i.startswith(f"{folder}/")]
    return [str(place / image) for image in Tree(place).images]


def _relative(tree: Tree, place: Path) -> str:
    """A place relative to the root, with ``''`` for the root; absolute if it lies elsewhere."""
    for path, root in (
        (place.absolute(), tree.root.absolute()),
        (place.resolve(), tree.root.resolve()),
    ):
        normal = Path(posixpath.normpath(path.as_posix()))
        if normal == root or root in normal.parents:
            inside = normal.relative_to(root).as_posix()
            return "" if inside == "." else inside
    return place.absolute().as_posix()


def listed_by_darknet(tree: Tree) -> Images | None:
    """The images of ``train.txt`` and ``valid.txt``, as CVAT and darknet list them."""
    found = Images()
    for path in tree.with_suffix(".txt"):
        split = SPLIT_KEYS.get(stem(posixpath.basename(path)).lower())
        if split is None:
            continue
        lines = [x.strip() for x in read_text(tree.root / path).splitlines() if x.strip()]
        if not lines or not all(map(is_image, lines)):
            continue
        for line in lines:
            image = tree.find_image(line, [posixpath.dirname(path), ""])
            found.paths.setdefault(image or line, split)
    return found if found.paths else None


def label_of(image: str, tree: Tree) -> str | None:
    """The label file of an image: beside it, or in a folder ``labels`` where it has ``images``."""
    if posixpath.isabs(image):
        return next((str(p) for p in _candidates(image) if Path(p).is_file()), None)
    return next((p for p in _candidates(image) if p in tree.files), None)


def _candidates(image: str) -> list[str]:
    folder, name = posixpath.split(stem(image) + ".txt")
    parts = folder.split("/") if folder else []
    found = []
    for place in reversed(range(len(parts))):
        if parts[place].lower() in ("images", "imgs", "img", "jpegimages"):
            for labels in ("labels", "Labels", "annotations"):
                found.append("/".join([*parts[:place], labels, *parts[place + 1 :], name]))
    found.append(join(folder, name))
    if parts:
        # train/a.jpg with labels/train/a.txt, and train/labels/a.txt.
        found.append("/".join([*parts[:-1], "labels", parts[-1], name]))
    found.append(join(folder, f"labels/{name}"))
    return found
