"""YOLO: a line of class and box, relative to the image, in a .txt file for each image."""

from __future__ import annotations

import math
import posixpath
import re
from collections import Counter
from collections.abc import Sequence
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
from kd_det.datasets.formats.tree import Tree, few, split_of_folder, stem
from kd_det.datasets.formats.yolo_places import (
    SPLIT_KEYS,
    Images,
    label_of,
    listed_by_darknet,
    listed_images,
)
from kd_det.datasets.looks import read_headers

NAME_FILES = ("classes.txt", "obj.names", "labels.txt", "names.txt")
# Beyond the border by rounding, as a fraction of the image.
ROUNDING = 1e-3
_LINE = re.compile(r"\s*\d+(\.0*)?(e\+00)?(\s+[-+.\de]+){4,}\s*$", re.IGNORECASE)


def find(tree: Tree) -> str | None:
    """Find the ``data.yaml``, list of names or label of a folder in YOLO's format."""
    for path in tree.with_suffix(".yaml", ".yml"):
        if _is_description(read_yaml(tree.root / path)):
            return path
    broken = [f for f in tree.with_suffix("data.yaml", "data.yml") if _fault_of(tree.root / f)]
    if broken:  # which is said when it is read
        return broken[0]
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
        if fault := _fault_of(tree.root / source):
            raise DataError(f"{tree.root / source} is not valid YAML: {fault}; correct it")
        settings = read_yaml(tree.root / source) or {}
        if not _is_description(settings):
            raise DataError(
                f"{tree.root / source}: expected YOLO's 'names' (the classes) and 'train' (a "
                "folder of images)"
            )
    names = _names(settings, tree, source)
    found = Images({i: split_of_folder(i) for i in tree.images if images is None or
                     i.startswith(f"{images}/")})  # fmt: skip
    if any(settings.get(key) for key in SPLIT_KEYS):
        found = listed_images(tree, source, settings)
    elif "train.txt" in {posixpath.basename(f) for f in tree.with_suffix(".txt")}:
        found = listed_by_darknet(tree) or found
    labels = {image: label_of(image, tree) for image in found.paths}
    if not found.paths or not any(labels.values()):
        raise DataError(_nothing(tree, found.paths, source))
    looks = read_headers(str(tree.root / image) for image in found.paths)
    lines: dict[str, list[str]] = {}
    result = []
    for image, split in found.paths.items():
        look = looks[str(tree.root / image)]
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


def _fault_of(path: Path) -> str | None:
    """What is wrong with a YAML file, in one line."""
    try:
        yaml.safe_load(read_text(path))
    except (yaml.YAMLError, DataError) as error:
        return " ".join(str(error).split())
    return None


def _is_description(content: Any) -> bool:
    """Whether a YAML file has classes, and images of a part."""
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
    """Describe in a clause what is wrong with a line; empty if nothing is."""
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
