"""digits-coco: handwritten digits on cluttered backgrounds, as a small COCO detection set.

The handwriting is that of :func:`sklearn.datasets.load_digits` (1797 drawings of 8x8 pixels, part
of the UCI set "Optical Recognition of Handwritten Digits"), so nothing is downloaded. Train and
val are made from disjoint drawings. Each image has a random generator of its own, so that image
``i`` depends on the seed, the split and ``i`` alone, not on how many images are made.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

CLASSES: tuple[str, ...] = tuple("0123456789")
PALETTE: tuple[tuple[int, int, int], ...] = (
    (220, 20, 60), (0, 130, 200), (60, 180, 75), (255, 165, 0), (145, 30, 180),
    (0, 190, 190), (240, 50, 230), (170, 110, 40), (128, 128, 0), (0, 0, 128),
)  # fmt: skip
SPLITS: tuple[str, ...] = ("train", "val")

# The generator's name and version stand in the files' `info`. Raise the version with any change
# that makes another picture from the same seed.
GENERATOR = "kd_det.datasets.digits_coco"
VERSION = 1
VAL_SHARE = 0.2  # of the drawings of each class
MAX_DIGITS = 6
SIZE_RANGE = (0.15, 0.5)  # longer side of a digit, as a share of the image's side
MIN_DIGIT = 8  # pixels: the drawings themselves have no more
MAX_BOX_OVERLAP = 0.15  # intersection over the smaller box; the ink itself never overlaps
MIN_CONTRAST = 90.0  # distance in colour between a digit and what lies under it
JPEG_QUALITY = 95
_GLYPH_SCALE = 8  # drawings are enlarged by this before they are warped, for smooth outlines

# Names of everything that a set consists of; anything else in the folder is somebody's own.
_OWN_FILES = re.compile(r"annotations(/instances_(train|val)\.json)?|(train|val)(/\d{6,}\.jpg)?")

Track = Callable[[Sequence[int], str], Iterable[int]]


@dataclass(frozen=True)
class DigitsCoco:
    """Where a digits-coco set lies, and whether this call made it or found it up to date."""

    root: Path
    train_ann: Path
    train_dir: Path
    val_ann: Path
    val_dir: Path
    created: bool


class Handwriting(NamedTuple):
    """Drawings ``(N, 8, 8)`` in [0, 1], their labels ``(N,)``, and the rows of each split."""

    drawings: np.ndarray
    labels: np.ndarray
    rows: dict[str, np.ndarray]


class PlacedDigit(NamedTuple):
    """One digit of an image: its row in the handwriting, its class index, its box in pixels."""

    sample: int
    label: int
    x: int
    y: int
    w: int
    h: int


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
        FileExistsError: ``root`` holds something else than the set asked for.
        ImportError: scikit-learn, which brings the handwriting, is missing.
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


def load_handwriting(seed: int) -> Handwriting:
    """Load scikit-learn's digits and split them by class into drawings for train and for val."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "digits-coco is drawn from scikit-learn's handwritten digits, and scikit-learn could "
            'not be imported; install it with: pip install "kd_det[demo]"'
        ) from error
    digits = load_digits()
    # 2 stands where images have their split, 0 or 1: a stream that no image uses.
    rng = np.random.default_rng(np.random.SeedSequence([seed, len(SPLITS)]))
    train, val = [], []
    for label in range(len(CLASSES)):
        shuffled = rng.permutation(np.flatnonzero(digits.target == label))
        cut = round(VAL_SHARE * len(shuffled))
        val.append(shuffled[:cut])
        train.append(shuffled[cut:])
    rows = {"train": np.sort(np.concatenate(train)), "val": np.sort(np.concatenate(val))}
    return Handwriting((digits.images / 16.0).astype(np.float32), digits.target, rows)


def render_image(
    handwriting: Handwriting, image_size: int, seed: int, split: str, index: int
) -> tuple[np.ndarray, np.ndarray, list[PlacedDigit]]:
    """Draw image ``index`` of a split.

    Returns the picture, uint8 ``(S, S, 3)``; the ink, uint8 ``(S, S)``, 0 on the background and
    ``k + 1`` on the strokes of digit ``k``; and the digits, of which there is at least one.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, SPLITS.index(split), index]))
    canvas = _draw_background(rng, image_size)
    ink = np.zeros((image_size, image_size), np.uint8)
    digits: list[PlacedDigit] = []
    wanted = int(rng.integers(1, MAX_DIGITS + 1))
    for _ in range(4 * wanted):
        sample = int(rng.choice(handwriting.rows[split]))
        # Log-uniform: as many between 15% and 27% as between 27% and 50%.
        side = image_size * math.exp(rng.uniform(*np.log(SIZE_RANGE)))
        alpha = _draw_digit(rng, handwriting.drawings[sample], max(side, MIN_DIGIT))
        strokes = alpha > 0.5
        h, w = alpha.shape
        x, y = (int(rng.integers(0, image_size - extent + 1)) for extent in (w, h))
        digit = PlacedDigit(sample, int(handwriting.labels[sample]), x, y, w, h)
        place = (slice(y, y + h), slice(x, x + w))
        if ink[place][strokes].any() or any(
            _overlap(digit, other) > MAX_BOX_OVERLAP for other in digits
        ):
            continue
        under = canvas[place]
        colour = _contrasting_colour(rng, under[strokes].mean(axis=0))
        opacity = alpha[..., None] * np.float32(rng.uniform(0.8, 1.0))
        canvas[place] = under + opacity * (colour - under)
        digits.append(digit)
        ink[place][strokes] = len(digits)
        if len(digits) == wanted:
            break
    canvas += rng.normal(0.0, rng.uniform(2.0, 12.0), canvas.shape).astype(np.float32)
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8), ink, digits


def _draw_digit(rng: np.random.Generator, drawing: np.ndarray, side: float) -> np.ndarray:
    """Turn an 8x8 drawing into opacity ``(h, w)`` in [0, 1], cropped to where it exceeds 0.5."""
    # The margin keeps strokes at the edge of the drawing round after enlargement.
    glyph = np.pad(drawing, 1)
    glyph = cv2.resize(glyph, None, fx=_GLYPH_SCALE, fy=_GLYPH_SCALE, interpolation=cv2.INTER_CUBIC)
    ys, xs = np.nonzero(glyph > 0.5)
    scale = side / (max(np.ptp(xs), np.ptp(ys)) + 1)
    angle, shear = math.radians(rng.uniform(-15, 15)), rng.uniform(-0.2, 0.2)
    stretch = rng.uniform(0.85, 1.1)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    linear = turn @ np.array([[stretch, shear], [0.0, 1.0]]) * scale
    room = math.ceil(1.6 * side) + 4
    centre = np.array([xs.min() + xs.max(), ys.min() + ys.max()]) / 2
    matrix = np.column_stack([linear, room / 2 - linear @ centre])
    warped = cv2.warpAffine(glyph, matrix, (room, room), flags=cv2.INTER_LINEAR)
    # Steeper than the enlarged drawing: strokes with an edge of a few pixels, not a haze.
    alpha = np.clip((warped - 0.35) / 0.3, 0.0, 1.0)
    ys, xs = np.nonzero(alpha > 0.5)
    return alpha[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]


def _draw_background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Paint clutter, float32 ``(S, S, 3)``: gradient, clouds, blobs, lines and digit-like strokes."""
    # Two colours not too far apart: a background, with room for digits lighter and darker.
    first = rng.uniform(20, 235, 3)
    second = np.clip(first + rng.uniform(-90, 90, 3), 0, 255)
    angle = rng.uniform(0, 2 * math.pi)
    ramp = np.linspace(-0.5, 0.5, size)
    slope = ramp[None, :] * math.cos(angle) + ramp[:, None] * math.sin(angle)
    canvas = (first + (slope[..., None] / math.sqrt(2) + 0.5) * (second - first)).astype(np.float32)

    cells = int(rng.integers(3, 9))
    clouds = rng.normal(0.0, rng.uniform(5, 25), (cells, cells, 3)).astype(np.float32)
    canvas += cv2.resize(clouds, (size, size), interpolation=cv2.INTER_CUBIC)

    def colour(reach: float) -> tuple[float, ...]:
        return tuple(np.clip((first + second) / 2 + rng.uniform(-reach, reach, 3), 0, 255))

    def point() -> tuple[int, int]:
        x, y = rng.integers(0, size, 2)
        return int(x), int(y)

    for _ in range(int(rng.integers(0, 5))):  # blobs, some filled, some rings
        axes = tuple(int(a) for a in rng.integers(max(1, size // 25), size // 4, 2))
        thickness = -1 if rng.random() < 0.6 else int(rng.integers(1, max(2, size // 32) + 1))
        tilt = float(rng.uniform(0, 180))
        cv2.ellipse(canvas, point(), axes, tilt, 0, 360, colour(80), thickness, cv2.LINE_AA)
    for _ in range(int(rng.integers(0, 6))):
        thickness = int(rng.integers(1, max(2, size // 40) + 1))
        cv2.line(canvas, point(), point(), colour(110), thickness, cv2.LINE_AA)
    for _ in range(int(rng.integers(0, 5))):  # as wide, bent and bright as a digit's strokes
        ends = rng.uniform(0, size, 2) + rng.uniform(-0.2, 0.2, (3, 2)) * size
        t = np.linspace(0, 1, 12)[:, None]
        curve = (1 - t) ** 2 * ends[0] + 2 * t * (1 - t) * ends[1] + t**2 * ends[2]
        thickness = int(rng.integers(max(1, size // 48), max(2, size // 20) + 1))
        bend = np.rint(curve).astype(np.int32).reshape(1, -1, 2)
        cv2.polylines(canvas, list(bend), False, colour(160), thickness, cv2.LINE_AA)
    return canvas


def _contrasting_colour(rng: np.random.Generator, under: np.ndarray) -> np.ndarray:
    """Draw a colour at least MIN_CONTRAST away from ``under``; there always is one."""
    while True:
        colour = rng.uniform(0, 255, 3).astype(np.float32)
        if np.linalg.norm(colour - under) >= MIN_CONTRAST:
            return colour


def _overlap(a: PlacedDigit, b: PlacedDigit) -> float:
    """Intersection of two boxes over the area of the smaller."""
    width = min(a.x + a.w, b.x + b.w) - max(a.x, b.x)
    height = min(a.y + a.h, b.y + b.h) - max(a.y, b.y)
    return max(0, width) * max(0, height) / min(a.w * a.h, b.w * b.h)


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
            f"{target}: expected a digits-coco set, an empty folder or nothing, found something "
            "else, which is never replaced; choose another root"
        )
    if force:
        names = (path.relative_to(target).as_posix() for path in sorted(target.rglob("*")))
        foreign = [name for name in names if not _OWN_FILES.fullmatch(name)]
        if foreign:
            raise FileExistsError(
                f"{target}: expected nothing but a digits-coco set to replace, found "
                f"{len(foreign)} more, such as {foreign[0]}; move that away first"
            )
        return False
    for split in SPLITS:
        expected = _info(split, arguments)
        if found[split] != expected:
            raise FileExistsError(
                f"{target}: expected the {split} set of {_summary(expected)}, found that of "
                f"{_summary(found[split])}; choose another root, or force to replace it"
            )
        count = sum(1 for _ in (target / split).glob("*.jpg"))
        if count != arguments[f"{split}_images"]:
            raise FileExistsError(
                f"{target / split}: expected {arguments[f'{split}_images']} images, found {count}; "
                "choose another root, or force to make the set again"
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
        raise ValueError(f"{name}: expected an integer of {least} or more, found {value!r}")
    return int(value)
