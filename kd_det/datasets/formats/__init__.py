"""Read the data that people have: COCO, YOLO, Pascal VOC, CVAT and LabelMe.

Each format has a module with ``find(tree)``, which says what it is recognised by, and ``read``.
They are our own: libraries that read as many formats are heavy, and fail on the wrong folders,
suffixes and separators of real exports (docs/your_data.md has a comparison).
"""

from __future__ import annotations

import json
import os
import posixpath
from collections import Counter
from pathlib import Path

from kd_det.datasets.coco import DataError
from kd_det.datasets.formats import coco, cvat, labelme, voc, yolo
from kd_det.datasets.formats.detection_set import (
    SPLITS,
    DetectionSet,
    Part,
    Reading,
    divide,
    relabel,
)
from kd_det.datasets.formats.tree import Tree, few, is_image

__all__ = ["DetectionSet", "Part", "read_set"]

VAL_SPLIT = 0.2
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".rar", ".7z")


def read_set(
    root: Path,
    train_ann: str | None = None,
    val_ann: str | None = None,
    images: str | None = None,
    val_split: float | None = None,
    seed: int = 0,
) -> DetectionSet:
    """Recognise and read a data set for detection; nothing is written.

    Args:
        root: The folder, or a file in it that describes it: a ``data.yaml``, or annotations.
        train_ann: What to learn from, where it cannot be guessed: a file of annotations, a
            ``data.yaml``, or a folder of labels.
        val_ann: The same for what to evaluate on.
        images: The folder of images.
        val_split: Fraction of images to evaluate on, for data that are not divided; 0.2 if not
            given.
        seed: Of that division.

    Raises:
        NotADirectoryError: If there is no such folder.
        DataError: If it is in no format that is read, or in several, or is not valid.
    """
    root = Path(os.path.normpath(root))
    if root.is_file():
        if root.suffix.lower() in ARCHIVES:
            raise DataError(f"{root} is an archive; unpack it, and give --data the folder")
        train_ann, root = train_ann or root.name, root.parent
    if not root.is_dir():
        raise NotADirectoryError(
            f"no folder is at {root}; expected one of labelled images, or a config of mmdet"
        )
    folder = None if images is None else _inside(root, images, "--images")
    tree = Tree(root, folder)
    given = {"train": train_ann, "val": val_ann}
    named = {s: _inside(root, path, f"--{s}-ann") for s, path in given.items() if path is not None}
    reading = _read_named(tree, named, folder) if named else _read(tree, folder, val_split)
    return _divide(root, reading, val_split, seed)


def _inside(root: Path, path: str, option: str) -> str:
    """A path that the user gave, relative to the root (or absolute, if it lies elsewhere)."""
    for place in (root / path, Path(path)):
        if place.exists():
            absolute, base = os.path.abspath(place), os.path.abspath(root)
            inside = os.path.relpath(absolute, base).replace(os.sep, "/")
            if inside == ".":
                return ""
            return Path(absolute).as_posix() if inside.startswith("..") else inside
    raise DataError(f"{option}: found no {path}, neither in {root} nor in the current folder")


def _read(tree: Tree, images: str | None, val_split: float | None) -> Reading:
    """Read what the folder is recognised as."""
    found = {
        name: source
        for name, module in FORMATS.items()
        if (source := module.find(tree)) is not None
    }
    if not found:
        raise DataError(_describe_contents(tree))
    if len(found) > 1:
        listed = ", ".join(f"{name} ({source})" for name, source in found.items())
        raise DataError(
            f"{tree.root} holds annotations in several formats: {listed}; name those to use with "
            "--train-ann (a file, or a folder of labels), or move the others out"
        )
    ((name, source),) = found.items()
    if name == "COCO":
        return coco.read(tree, {}, images, divided=val_split is not None)
    reading: Reading = FORMATS[name].read(tree, source, images)
    return reading


def _read_named(tree: Tree, named: dict[str, str], images: str | None) -> Reading:
    """Read what the user named."""
    if "train" not in named:
        raise DataError("--val-ann needs --train-ann, which names what to learn from")
    if all(path.lower().endswith(".json") for path in named.values()):
        if len(named) == 1:
            return coco.read(tree, {"": named["train"]}, images)
        return coco.read(tree, named, images)
    readings = {split: _read_one(tree, path, images) for split, path in named.items()}
    if len(readings) == 1:
        return readings["train"]
    return _joined(readings)


def _read_one(tree: Tree, path: str, images: str | None) -> Reading:
    """Read one file that describes all, or a folder of labels."""
    lower = path.lower()
    if lower.endswith((".yaml", ".yml")):
        return yolo.read(tree, path, images)
    if lower.endswith(".xml"):
        is_cvat = voc.root_name(tree.root / path) == "annotations"
        return cvat.read(tree, path, images) if is_cvat else voc.read(tree, path, images)
    if not (tree.root / path).is_dir():
        raise DataError(
            f"{path} is no annotation file that is read: expected COCO's .json, YOLO's data.yaml, "
            "CVAT's .xml, or a folder of labels"
        )
    inner = Tree(tree.root / path)
    for module, suffix in ((voc, ".xml"), (labelme, ".json"), (yolo, ".txt")):
        if inner.with_suffix(suffix):
            return module.read(tree, path, images)  # type: ignore[attr-defined, no-any-return]
    raise DataError(f"{tree.root / path} has no labels: no .xml, .json or .txt files")


def _joined(readings: dict[str, Reading]) -> Reading:
    """Join readings into one that has the classes of all."""
    names = list(
        dict.fromkeys(
            c["name"] for r in readings.values() for p in r.parts for c in p.data["categories"]
        )
    )
    parts = [relabel(r.parts, names, split) for split, r in readings.items()]
    return Reading(
        ", ".join(dict.fromkeys(r.format for r in readings.values())),
        parts,
        [note for r in readings.values() for note in r.notes],
        [fault for r in readings.values() for fault in r.faults],
    )


def _divide(root: Path, reading: Reading, val_split: float | None, seed: int) -> DetectionSet:
    """Make the data set of a reading; divide images into training and validation if need be."""
    parts = {p.split: p for p in reading.parts}
    notes = [f"{root} is recognised as {reading.format}", *reading.notes]
    found = DetectionSet(root, reading.format, {}, notes, reading.faults)
    if None in parts and len(parts) > 1:
        found.notes.append(f"{parts[None].count} images in no part's folder are left out")
        del parts[None]
    if "train" not in parts and None not in parts:
        raise DataError(
            f"{root} has a part called {few(p or '' for p in parts)} and none to learn from: name "
            "it with --train-ann, or call its folder 'train'"
        )
    if "val" not in parts and "test" in parts and val_split is None:
        parts["val"] = parts.pop("test")
        found.notes.append("there is no validation part, so students are evaluated on 'test'")
    if "val" in parts:
        if val_split is not None:
            raise DataError(
                f"{root} is divided into {few(p or '' for p in parts)} already; leave "
                "out --val-split"
            )
    else:
        whole = parts.pop(None, None) or parts.pop("train")
        fraction = VAL_SPLIT if val_split is None else val_split
        parts["train"], parts["val"], found.division = divide(whole, fraction, seed)
        found.notes.append(
            f"nothing divides the images, so {parts['val'].count} of {whole.count} are to evaluate "
            f"on (--val-split {fraction:g}, seed {seed})"
        )
    found.parts = {split: parts[split] for split in SPLITS if split in parts}
    for split, part in found.parts.items():
        part.split = split
    return found


def _describe_contents(tree: Tree) -> str:
    """Say in a sentence why a folder cannot be read, and what to do."""
    counts = Counter(posixpath.splitext(path)[1].lower() for path in tree.files)
    images = sum(is_image(path) for path in tree.files)
    archives = [path for path in sorted(tree.files) if path.lower().endswith(ARCHIVES)]
    expected = (
        "expected annotations of COCO (.json), YOLO (data.yaml and labels/*.txt), Pascal VOC "
        "(.xml), CVAT (annotations.xml) or LabelMe (.json beside each image)"
    )
    if archives and not images:
        return f"{tree.root} has an archive in it, {few(archives)}; unpack it first"
    if not counts:
        return f"{tree.root} is empty; {expected}"
    studio = next((f for f in tree.with_suffix(".json") if _is_label_studio(tree.root / f)), None)
    if studio is not None:
        return f"{tree.root / studio} is Label Studio's own JSON; export it as COCO or YOLO instead"
    for path in tree.with_suffix(".json"):
        try:
            json.loads((tree.root / path).read_bytes())
        except ValueError as error:
            return f"{tree.root / path} is not valid JSON ({error}); export it again"
    if tree.with_suffix(".json"):
        listed = few(tree.with_suffix(".json"), 6)
        return f"{tree.root} has no annotation file that is read: found {listed}; {expected}"
    if images:
        return f"{tree.root} has {images} images without labels; {expected}, or --train-ann FILE"
    kinds = few(f"{count} {suffix or 'without suffix'}" for suffix, count in counts.items())
    return f"{tree.root} has no images and no annotations (files: {kinds}); {expected}"


def _is_label_studio(path: Path) -> bool:
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        return False
    first = content[0] if isinstance(content, list) and content else None
    return isinstance(first, dict) and ("annotations" in first and "data" in first)


FORMATS = {"COCO": coco, "YOLO": yolo, "Pascal VOC": voc, "CVAT": cvat, "LabelMe": labelme}
