"""Read annotation files in COCO's format, and write repaired copies."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kd_det.errors import InvalidInputError
from kd_det.files import write_atomically

Entry = dict[str, Any]
KEYS = ("images", "annotations", "categories")
# How much of an entry is shown in a message, in characters.
SHOWN = 120


class DataError(InvalidInputError):
    """Data that cannot be found, or that lacks what training needs."""


@dataclass(frozen=True)
class Repair:
    """What was computed, in a clause, and whether mmdet fails or drops objects without it."""

    text: str
    required: bool = True


@dataclass
class Annotations:
    """A checked annotation file.

    Args:
        path: The file.
        data: Its content, repaired.
        images: The folder that ``file_name`` is relative to.
        repairs: What was repaired.
        warnings: What may be wrong and cannot be repaired, in sentences.
    """

    path: Path
    data: dict[str, Any]
    images: Path
    repairs: list[Repair] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in the order of the file, which is that of mmdet's labels."""
        return split_categories(self.data)[0]

    @property
    def has_masks(self) -> bool:
        """Whether every annotation has a ``segmentation``; some exports have an empty one."""
        return all(a.get("segmentation") for a in self.data["annotations"])

    def describe_repairs(self, only_required: bool = False) -> str:
        """The repairs in one clause."""
        return ", ".join(r.text for r in self.repairs if r.required or not only_required)

    def write(self, path: Path) -> None:
        """Write the repaired content as ASCII, which is read alike in every locale.

        Raises:
            OSError: If it cannot be written.
        """
        write_atomically(path, json.dumps(self.data).encode("ascii"))


def read_annotations(path: Path) -> dict[str, Any]:
    """The content of an annotation file as it stands, in any encoding of Unicode.

    Raises:
        DataError: If it is not JSON in COCO's detection format.
        OSError: If it cannot be read.
    """
    return parse(path, path.read_bytes(), KEYS)


def split_categories(data: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the classes in the order of the file, and of categories that are no classes.

    Roboflow puts the name of the project before the classes, as their supercategory.
    """
    categories = data["categories"]
    used = {annotation.get("category_id") for annotation in data["annotations"]}
    above = {c.get("supercategory") for c in categories if c.get("supercategory") != c["name"]}
    groups = {
        c["id"]
        for c in categories
        if c["id"] not in used and c["name"] in above and c.get("supercategory") in (None, "none")
    }
    return (
        tuple(c["name"] for c in categories if c["id"] not in groups),
        tuple(c["name"] for c in categories if c["id"] in groups),
    )


def parse(path: Path, raw: bytes, keys: Sequence[str]) -> dict[str, Any]:
    """The content of an annotation file.

    Raises:
        DataError: Unless it has a list of dicts under each of ``keys``.
    """
    try:
        data = json.loads(raw)
    except ValueError as error:
        raise DataError(f"{path}: expected JSON in COCO format: {error}") from error
    lacking = [key for key in keys if not isinstance(data, dict) or key not in data]
    if lacking:
        raise DataError(f"{path}: expected JSON in COCO format, found no {', '.join(lacking)}")
    for key in keys:
        entries = data[key]
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise DataError(f"{path}: expected JSON in COCO format, with a list of dicts as {key}")
    content: dict[str, Any] = data
    return content


def refuse(found: Annotations, kind: str, wrong: Sequence[Entry], what: str, remedy: str) -> None:
    """Raise ``DataError`` if there are wrong entries; tells how many, and shows the first."""
    if wrong:
        first = json.dumps(wrong[0], ensure_ascii=False)
        first = first if len(first) <= SHOWN else f"{first[:SHOWN]}..."
        raise DataError(
            f"{found.path}: {len(wrong)} of {len(found.data[kind])} {kind} {what}, the first is "
            f"{first}; {remedy}"
        )
