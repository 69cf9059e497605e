"""digits-coco: handwritten digits on cluttered backgrounds, as a small COCO detection set.

The handwriting is that of :func:`sklearn.datasets.load_digits` (1797 drawings of 8x8 pixels, part
of the UCI set "Optical Recognition of Handwritten Digits"), so nothing is downloaded. Train and
val are made from disjoint drawings. Each image has a random generator of its own, so that image
``i`` depends on the seed, the split and ``i`` alone, not on how many images are made.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import cv2

from kd_det.errors import InvalidInputError

from .digits_drawing import CLASSES, SPLITS, Handwriting, load_handwriting, render_image

PALETTE: tuple[tuple[int, int, int], ...] = (
    (220, 20, 60), (0, 130, 200), (60, 180, 75), (255, 165, 0), (145, 30, 180),
    (0, 190, 190), (240, 50, 230), (170, 110, 40), (128, 128, 0), (0, 0, 128),
)  # fmt: skip

# The generator's name and version stand in the files' `info`. Raise the version with any change
# that makes another picture from the same seed.
GENERATOR = "kd_det.datasets.digits_coco"
VERSION = 1
JPEG_QUALITY = 95

# Names of everything that a set consists of; anything else in the folder is somebody's own.
_OWN_FILES = re.compile(r"annotations(/instances_(train|val)\.json)?|(train|val)(/\d{6,}\.jpg)?")

Track = Callable[[Sequence[int], str], Iterable[int]]


@dataclass(frozen=True)
class DigitsCoco:
    """Paths of a digits-coco set, and whether this call made it or found it up to date."""

    root: Path
    train_ann: Path
    train_dir: Path
    val_ann: Path
    val_dir: Path
    created: bool


def make_digits_coco(
    root: str | Path,
    image_size: int = 128,
    train_images: int = 1000,
    val_images: int = 200,
    seed: int = 0,
    force: bool = False,
    track: Track | None = None,
) -> DigitsCoco:
    """Make the digits-coco set under ``root``, unless it is already there.

    The layout is ``annotations/instances_{train,val}.json`` and ``{train,val}/000000.jpg``.
    Category ids are 1 to 10 for the classes '0' to '9'; each annotation also names, as ``sample``,
    the row of the drawing in ``load_digits``. On one machine the same arguments give the same
    bytes. Files are written beside ``root`` and renamed at the end, so an interrupted call leaves
    nothing under the final name.

    Args:
        root: Folder of the set; its parents are made.
        image_size: Side of the square images in pixels, 32 or more. Digits scale with it.
        train_images: Number of training images.
        val_images: Number of validation images.
        seed: Seed of the pictures and of the split of the handwriting, 0 or more.
        force: Replace a digits-coco set that was made with other arguments or is incomplete.
            A folder that holds anything else is never touched.
        track: Called with ``(range(n), description)`` for each split, yields its numbers;
            ``rich.progress.track`` shows a progress bar.

    Raises:
        ValueError: An argument is out of range.
        FileExistsError: ``root`` holds something other than the requested set.
        ImportError: scikit-learn, which has the handwriting, is not installed.
    """
    arguments = {
        "image_size": _integer("image_size", image_size, 32),
        "train_images": _integer("train_images", train_images, 0),
        "val_images": _integer("val_images", val_images, 0),
        "seed": _integer("seed", seed, 0),
    }
    # Through symbolic links, so that a link to a larger disk stays a link.
    target = Path(root).expanduser().resolve()
    if _is_current(target, arguments, force):
        return _paths(target, created=False)

    handwriting = load_handwriting(arguments["seed"])
    target.parent.mkdir(parents=True, exist_ok=True)
    workspace = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        made = workspace / "made"
        for split in SPLITS:
            _write_split(made, split, arguments, handwriting, track)
        # Another process may have been faster; its set stays, for somebody may be reading it.
        if not force and _is_current(target, arguments, force):
            return _paths(target, created=False)
        _move_into_place(made, target, workspace / "replaced")
    finally:
        shutil.rmtree(workspace, ignore_errors=True)
    return _paths(target, created=True)


def _write_split(
    root: Path,
    split: str,
    arguments: dict[str, int],
    handwriting: Handwriting,
    track: Track | None,
) -> None:
    """Draw and write the images of a split, then its annotation file."""
    folder = root / split
    folder.mkdir(parents=True)
    size = arguments["image_size"]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    indices = range(arguments[f"{split}_images"])
    for index in track(indices, f"digits-coco {split}") if track else indices:
        picture, _, digits = render_image(handwriting, size, arguments["seed"], split, index)
        name = f"{index:06d}.jpg"
        done, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        if not done:
            raise RuntimeError(f"OpenCV could not encode {split}/{name} as JPEG")
        (folder / name).write_bytes(data.tobytes())
        images.append({"id": index + 1, "file_name": name, "width": size, "height": size})
        for digit in digits:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index + 1,
                    "category_id": digit.label + 1,
                    "bbox": [digit.x, digit.y, digit.w, digit.h],
                    "area": digit.w * digit.h,
                    "iscrowd": 0,
                    "sample": digit.sample,
                }
            )
    content = {
        "info": _info(split, arguments),
        "licenses": [],
        "categories": [
            {"id": label + 1, "name": name, "supercategory": "digit"}
            for label, name in enumerate(CLASSES)
        ],
        "images": images,
        "annotations": annotations,
    }
    path = _annotation_file(root, split)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def _move_into_place(made: Path, target: Path, replaced: Path) -> None:
    """Rename the finished set to its final name; what was there comes back if that fails."""
    if target.exists():
        target.rename(replaced)
    try:
        made.rename(target)
    except OSError:
        if replaced.exists() and not target.exists():
            replaced.rename(target)
        raise


def _is_current(target: Path, arguments: dict[str, int], force: bool) -> bool:
    """Whether ``target`` holds the set asked for and may stay; False if it is to be (re)made.

    Cheap: compares what the annotation files say and counts the images, but reads none.
    """
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    found = {split: _read_info(_annotation_file(target, split)) for split in SPLITS}
    if not any(info.get("generator") == GENERATOR for info in found.values()):
        raise FileExistsError(
            f"{target}: expected a digits-coco set, an empty folder or no folder, found other "
            "files, which are never replaced; choose another root"
        )
    if force:
        names = (path.relative_to(target).as_posix() for path in sorted(target.rglob("*")))
        foreign = [name for name in names if not _OWN_FILES.fullmatch(name)]
        if foreign:
            raise FileExistsError(
                f"{target}: expected only the files of a digits-coco set to replace, found "
                f"{len(foreign)} other, such as {foreign[0]}; move them away first"
            )
        return False
    for split in SPLITS:
        expected = _info(split, arguments)
        if found[split] != expected:
            raise FileExistsError(
                f"{target}: expected the {split} set of {_summary(expected)}, found that of "
                f"{_summary(found[split])}; choose another root, or use force to replace it"
            )
        count = sum(1 for _ in (target / split).glob("*.jpg"))
        if count != arguments[f"{split}_images"]:
            raise FileExistsError(
                f"{target / split}: expected {arguments[f'{split}_images']} images, found {count}; "
                "choose another root, or use force to make the set again"
            )
    return True


def _read_info(path: Path) -> dict[str, Any]:
    """The `info` of an annotation file; empty where there is none to be read."""
    try:
        info = json.loads(path.read_text(encoding="utf-8"))["info"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return info if isinstance(info, dict) else {}


def _summary(info: dict[str, Any]) -> str:
    if not info:
        return "no readable annotation file"
    arguments = ", ".join(f"{name} {value}" for name, value in info.get("arguments", {}).items())
    return f"version {info.get('version')} with {arguments}"


def _info(split: str, arguments: dict[str, int]) -> dict[str, Any]:
    """The `info` of an annotation file: what it is, and all that decides its bytes."""
    return {
        "description": "digits-coco: handwritten digits on cluttered backgrounds",
        "generator": GENERATOR,
        "version": VERSION,
        "split": split,
        "arguments": dict(arguments),
    }


def _annotation_file(root: Path, split: str) -> Path:
    return root / "annotations" / f"instances_{split}.json"


def _paths(root: Path, created: bool) -> DigitsCoco:
    return DigitsCoco(
        root=root,
        train_ann=_annotation_file(root, "train"),
        train_dir=root / "train",
        val_ann=_annotation_file(root, "val"),
        val_dir=root / "val",
        created=created,
    )


def _integer(name: str, value: int, least: int) -> int:
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise InvalidInputError(f"{name}: expected an integer of {least} or more, found {value!r}")
    return int(value)
