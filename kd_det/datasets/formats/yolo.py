"""YOLO: a line of class and box, relative to the image, in a .txt file for each image."""

from __future__ import annotations

import math
import posixpath
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from kd_det.datasets.coco import DataError
from kd_det.datasets.faults import WARNING, Fault
from kd_det.datasets.formats.detection_set import (
    Box,
    Labelled,
    Reading,
    box_around,
    build_parts,
)
from kd_det.datasets.formats.text import read_text
from kd_det.datasets.formats.tree import Tree, few, is_image, join, split_of_folder, stem
from kd_det.datasets.looks import read_headers

SPLIT_KEYS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
NAME_FILES = ("classes.txt", "obj.names", "labels.txt", "names.txt")
# Beyond the border by rounding, as a fraction of the image.
ROUNDING = 1e-3
_LINE = re.compile(r"\s*\d+(\.0*)?(e\+00)?(\s+[-+.\de]+){4,}\s*$", re.IGNORECASE)


@dataclass
class _Images:
    """Images by split, as paths relative to the root or absolute, and their notes."""

    paths: dict[str, str | None] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def find(tree: Tree) -> str | None:
    """What says that a folder is in YOLO's format: its ``data.yaml``, list of names or labels."""
    for path in tree.with_suffix(".yaml", ".yml"):
        if _is_description(read_yaml(tree.root / path)):
            return path
    labels = _label_files(tree)
    names = [f for f in tree.with_suffix(".txt", ".names") if posixpath.basename(f) in NAME_FILES]
    if labels and names:
        return min(names, key=lambda f: f.count("/"))
    return next(iter(labels), None)


def read(tree: Tree, source: str, images: str | None = None) -> Reading:
    """Read a folder in YOLO's format.

    Args:
        tree: Its files.
        source: What :func:`find` found, or the user named: a ``data.yaml``, a list of names, a
            label or a folder of labels.
        images: The folder of images, if the user named it.

    Raises:
        DataError: If there are no images or no labels, or ``data.yaml`` is not valid.
    """
    settings: dict[str, Any] = {}
    if source.lower().endswith((".yaml", ".yml")):
        settings = read_yaml(tree.root / source) or {}
        if not _is_description(settings):
            raise DataError(
                f"{tree.root / source}: expected YOLO's 'names' (the classes) and 'train' (a "
                "folder of images)"
            )
    names = _names(settings, tree, source)
    found = _Images({i: split_of_folder(i) for i in tree.images if images is None or
                     i.startswith(f"{images}/")})  # fmt: skip
    if any(settings.get(key) for key in SPLIT_KEYS):
        found = _listed_images(tree, source, settings)
    elif "train.txt" in {posixpath.basename(f) for f in tree.with_suffix(".txt")}:
        found = _listed_by_darknet(tree) or found
    labels = {image: _label_of(image, tree) for image in found.paths}
    if not found.paths or not any(labels.values()):
        raise DataError(_nothing(tree, found.paths, source))
    looks = read_headers(str(_absolute(tree, image)) for image in found.paths)
    lines: dict[str, list[str]] = {}
    result = []
    for image, split in found.paths.items():
        look = looks[str(_absolute(tree, image))]
        labelled = Labelled(image, split, None if look.fault else (look.width, look.height))
        label = labels[image]
        if label is not None and labelled.size is not None:
            labelled.boxes = _boxes(tree.root / label, label, labelled.size, names, lines)
        result.append(labelled)
    if not names:
        count = 1 + max((int(b.name) for i in result for b in i.boxes), default=0)
        classes = [str(number) for number in range(count)]
        found.notes.append("no file names the classes, so they are called by their numbers")
    else:
        classes = names
    faults = [_fault(kind, places, source) for kind, places in lines.items()]
    without = sum(label is None for label in labels.values())
    if without:
        found.notes.append(f"{without} images have no label file, and count as background")
    orphans = sorted(set(_label_files(tree)) - set(labels.values()))
    if orphans:
        faults.append(
            Fault(
                source,
                f"{len(orphans)} label files have no image",
                len(orphans),
                tuple(orphans),
                "add the images, or remove the labels",
                WARNING,
            )
        )
    return Reading(f"YOLO ({source})", build_parts(result, classes, source), found.notes, faults)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file; None if it is not valid."""
    try:
        return yaml.safe_load(read_text(path))
    except (yaml.YAMLError, DataError):
        return None


def _is_description(content: Any) -> bool:
    """Whether it has the classes, and images of a part."""
    is_mapping = isinstance(content, dict) and ("names" in content or "nc" in content)
    return is_mapping and any(key in content for key in ("path", *SPLIT_KEYS))


def _names(settings: dict[str, Any], tree: Tree, source: str) -> list[str]:
    """The classes in order; empty if nothing names them."""
    names = settings.get("names")
    if isinstance(names, str) and names in tree.files:
        names = read_text(tree.root / names).splitlines()
    if isinstance(names, dict):
        try:
            by_number = {int(key): str(name) for key, name in names.items()}
        except (TypeError, ValueError) as error:
            raise DataError(f"{tree.root / source}: expected numbers as keys of 'names'") from error
        names = [by_number.get(i, f"class {i}") for i in range(1 + max(by_number, default=-1))]
    if names is None:
        files = [f for f in tree.with_suffix(".txt", ".names") if
                 posixpath.basename(f) in NAME_FILES or f.endswith(".names")]  # fmt: skip
        if files:
            text = read_text(tree.root / min(files, key=lambda f: (f.count("/"), f)))
            names = [line.strip() for line in text.splitlines() if line.strip()]
    if names is None and isinstance(settings.get("nc"), int):
        names = [str(number) for number in range(settings["nc"])]
    if not isinstance(names or [], list):
        raise DataError(f"{tree.root / source}: expected a list or a mapping as 'names'")
    result = [str(name) for name in names or []]
    twice = [name for name, count in Counter(result).items() if count > 1]
    if twice:
        raise DataError(f"{source} names several classes {few(twice)}; give each a name of its own")
    return result


def _listed_images(tree: Tree, source: str, settings: dict[str, Any]) -> _Images:
    """The images of the folders, or lists, that ``data.yaml`` names."""
    found = _Images()
    nowhere = []
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
                found.paths.setdefault(image, split)
    if nowhere and not found.paths:
        # What the folders are called says enough, wherever the file thinks that they are.
        found.paths = {image: split_of_folder(image) for image in tree.images}
        if not any(_label_of(image, tree) for image in found.paths):
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
    """Where a folder or list of ``data.yaml`` is, by how tools write it and where it was moved to.

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


def _listed_by_darknet(tree: Tree) -> _Images | None:
    """The images of ``train.txt`` and ``valid.txt``, as CVAT and darknet list them."""
    found = _Images()
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


def _label_of(image: str, tree: Tree) -> str | None:
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


def _boxes(
    path: Path,
    label: str,
    size: tuple[int, int],
    names: Sequence[str],
    faults: dict[str, list[str]],
) -> list[Box]:
    """The objects of a label file; adds what is wrong with its lines to ``faults``."""
    width, height = size
    boxes = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            values = [float(word) for word in line.split()]
        except ValueError:
            values = []
        wrong = _wrong(values, names)
        if wrong:
            faults.setdefault(wrong, []).append(f"{label}:{number}")
            continue
        label_number, rest = int(values[0]), values[1:]
        polygons: list[list[float]] = []
        if len(rest) == 4:
            x, y, w, h = rest
            corners = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
        else:
            corners = box_around(rest)
            polygons = [[v * (height if i % 2 else width) for i, v in enumerate(rest)]]
        pixels = [v * (height if i % 2 else width) for i, v in enumerate(corners)]
        # Written with six digits, a box at the border ends a fraction of a pixel beyond it.
        slack = (width * ROUNDING, height * ROUNDING)
        for i in range(4):
            limit = (width, height)[i % 2]
            if -slack[i % 2] <= pixels[i] < 0:
                pixels[i] = 0.0
            elif limit < pixels[i] <= limit + slack[i % 2]:
                pixels[i] = float(limit)
        name = names[label_number] if names else str(label_number)
        boxes.append(Box(name, pixels, polygons))
    return boxes


def _wrong(values: Sequence[float], names: Sequence[str]) -> str:
    """What is wrong with a line, in a clause; empty if nothing is."""
    if len(values) < 5 or (len(values) > 5 and len(values) % 2 == 0):
        return "no class and four numbers, nor points of an outline"
    if not all(map(math.isfinite, values)):
        return "NaN or infinite numbers"
    if not values[0].is_integer() or values[0] < 0 or (names and values[0] >= len(names)):
        return f"a class that is not one of 0 to {len(names) - 1}" if names else "no valid class"
    if max(values[1:]) > 2:
        return "numbers far beyond 1, as of pixels"
    return ""


def _fault(kind: str, places: Sequence[str], source: str) -> Fault:
    return Fault(
        source,
        f"{len(places)} lines of labels have {kind}",
        len(places),
        tuple(places),
        "expected 'class x y width height', relative to the image: correct or remove them",
    )


def _label_files(tree: Tree) -> list[str]:
    """Label files, one for an image; the first lines of a few are read."""
    stems = {posixpath.basename(stem(image)) for image in tree.images}
    files = [f for f in tree.with_suffix(".txt") if posixpath.basename(stem(f)) in stems]
    folders = {posixpath.dirname(f) for f in tree.with_suffix(".txt")}
    if not files and not stems:
        files = [
            f
            for f in tree.with_suffix(".txt")
            if "labels" in posixpath.dirname(f).lower() and posixpath.dirname(f) in folders
        ]
    for path in files[:20]:
        text = read_text(tree.root / path).strip()
        if text:
            return files if _LINE.match(text.splitlines()[0]) else []
    return []


def _absolute(tree: Tree, image: str) -> Path:
    return tree.root / image


def _nothing(tree: Tree, images: dict[str, str | None], source: str) -> str:
    labels = len(_label_files(tree))
    if not images:
        return (
            f"{tree.root} has labels in YOLO's format ({source}) and no images; put the images "
            "beside them, or name their folder with --images"
        )
    return (
        f"{tree.root} has {len(images)} images and "
        f"{f'{labels} label files, none of them' if labels else 'no label file'} for one of them: "
        "expected labels/<name>.txt where the image is images/<name>.jpg, or <name>.txt beside it"
    )
