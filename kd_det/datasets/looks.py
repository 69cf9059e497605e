"""Look at images: their sizes by their headers, or all of each file, decoded."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track

from kd_det.files import write_atomically

ORIENTATION = 0x0112
# EXIF orientations that change width and height for one another.
TURNED = (5, 6, 7, 8)
THREADS = 8
# Formats that both Pillow and OpenCV read.
SHARED_FORMATS = ("JPEG", "MPO", "PNG", "BMP", "WEBP", "TIFF", "PPM")
MISSING, UNREADABLE, DAMAGED = "missing", "unreadable", "damaged"


@dataclass(frozen=True)
class Look:
    """Size and state of an image file.

    Args:
        width: In pixels, as mmcv reads it: with its EXIF orientation applied.
        height: In pixels, likewise.
        turned: Whether width and height are stored the other way round.
        digest: SHA-256 of the file.
        fault: ``missing``; ``unreadable``: mmcv fails, as OpenCV 5 does on a file that is cut off;
            ``damaged``: mmcv reads a part, as OpenCV 4 does; or nothing.
    """

    width: int = 0
    height: int = 0
    turned: bool = False
    digest: str = ""
    fault: str = ""


def read_headers(paths: Iterable[str]) -> Mapping[str, Look]:
    """Look at the headers of images alone: sizes, and whether they can be read, in parallel."""
    paths = list(paths)
    with ThreadPoolExecutor(THREADS) as pool:
        return dict(zip(paths, pool.map(_read_header, paths)))


def look_at_all(paths: Sequence[str], kept: Path | None = None) -> Mapping[str, Look]:
    """Look at all images in parallel, with a progress bar on terminals.

    Args:
        paths: Of the files.
        kept: Where results are kept, and read again while no file has changed by its name, size
            or time.
    """
    digest = _digest(paths)
    if kept is not None and kept.is_file():
        try:
            content = json.loads(kept.read_text(encoding="ascii"))
            if content["digest"] == digest:
                return {path: Look(**look) for path, look in content["looks"].items()}
        except (ValueError, KeyError, TypeError):
            pass  # invalid or from another version: computed again
    console = Console(stderr=True)
    with ThreadPoolExecutor(THREADS) as pool:
        pairs = zip(paths, pool.map(look_at, paths))
        shown = dict(console=console, transient=True, disable=not console.is_terminal)
        found = dict(track(pairs, "Looking at images", len(paths), **shown))  # type: ignore[arg-type]
    if kept is not None:
        content = dict(digest=digest, looks={path: asdict(look) for path, look in found.items()})
        write_atomically(kept, json.dumps(content).encode("ascii"))
    return found


def look_at(path: str) -> Look:
    """Read all of an image file, and decode it."""
    raw = _read(path)
    if isinstance(raw, Look):
        return raw
    digest = hashlib.sha256(raw).hexdigest()
    fault = ""
    try:
        with Image.open(io.BytesIO(raw)) as image:
            if image.format in SHARED_FORMATS:
                fault = DAMAGED
                # All bytes of a JPEG are read, and an eighth of its pixels is computed.
                found = replace(_size(image), digest=digest)
                image.draft("RGB", (1, 1))
                image.load()
                return found
    except Exception:  # Pillow has an exception for each format; what counts is whether mmcv can
        pass
    return replace(_decoded(raw, fault), digest=digest)


def _read_header(path: str) -> Look:
    try:
        with Image.open(path) as image:
            return _size(image)
    except Exception:  # as above
        raw = _read(path)
        return raw if isinstance(raw, Look) else _decoded(raw)


def _read(path: str) -> bytes | Look:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return Look(fault=UNREADABLE if os.path.exists(path) else MISSING)


def _size(image: Image.Image) -> Look:
    """The size by the header."""
    turned = bool(image.info.get("exif")) and image.getexif().get(ORIENTATION) in TURNED
    width, height = image.size[::-1] if turned else image.size
    return Look(width, height, turned)


def _decoded(raw: bytes, fault: str = "") -> Look:
    """The size of what OpenCV reads."""
    try:
        image = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR) if raw else None
    except cv2.error:
        image = None
    if image is None:
        return Look(fault=UNREADABLE)
    return Look(image.shape[1], image.shape[0], fault=fault)


def _digest(paths: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        try:
            state = os.stat(path)
            seen = f"{path}\0{state.st_size}\0{state.st_mtime_ns}\n"
        except OSError:
            seen = f"{path}\0missing\n"
        digest.update(seen.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
