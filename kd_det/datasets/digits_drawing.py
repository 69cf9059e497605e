"""Drawing of digits-coco: handwriting, scaled, tinted and pasted on cluttered backgrounds."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np

from kd_det.errors import MissingPackageError

CLASSES: tuple[str, ...] = tuple("0123456789")
SPLITS: tuple[str, ...] = ("train", "val")
VAL_SHARE = 0.2  # of the drawings of each class
MAX_DIGITS = 6
SIZE_RANGE = (0.15, 0.5)  # longer side of a digit, as a share of the image's side
MIN_DIGIT = 8  # pixels: the drawings themselves have no more
MAX_BOX_OVERLAP = 0.15  # intersection over the smaller box; the ink itself never overlaps
MIN_CONTRAST = 90.0  # distance in colour between a digit and what lies under it
_GLYPH_SCALE = 8  # drawings are enlarged by this before they are warped, for smooth outlines


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


def load_handwriting(seed: int) -> Handwriting:
    """Load scikit-learn's digits and split them by class into drawings for train and for val."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingPackageError(
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
    """Paint clutter, float32 ``(S, S, 3)``: gradient, clouds, blobs, lines and strokes."""
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
