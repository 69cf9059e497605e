"""Read text as tools write it."""

from __future__ import annotations

import codecs
from pathlib import Path

from kd_det.datasets.coco import DataError


def read_text(path: Path) -> str:
    """A text file: UTF-8, with a byte order mark or without, or UTF-16 with one.

    Raises:
        DataError: If it is in another encoding.
        OSError: If it cannot be read.
    """
    raw = path.read_bytes()
    utf16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return raw.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected text in UTF-8: {error.reason}; save it so") from error
