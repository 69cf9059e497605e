"""Read annotation files in COCO's format, and write repaired copies."""

from __future__ import annotations

import codecs
import json
import locale
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kd_det.datasets.faults import Fault
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
        warnings: What may be wrong and cannot be repaired.
        faults: Collects what would be refused; without a list, the first of it is raised.
    """

    path: Path
    data: dict[str, Any]
    images: Path
    repairs: list[Repair] = field(default_factory=list)
    warnings: list[Fault] = field(default_factory=list)
    faults: list[Fault] | None = None

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
    used = {str(annotation.get("category_id")) for annotation in data["annotations"]}
    groups = [id(root) for root in find_roots(categories, used)]
    return (
        tuple(c["name"] for c in categories if id(c) not in groups),
        tuple(c["name"] for c in categories if id(c) in groups),
    )


def find_roots(categories: Sequence[Entry], used: Container[str]) -> list[Entry]:
    """Categories that only group the others, as Roboflow writes the project's name.

    They have no supercategory, are that of another category, and no id of theirs is among
    ``used``, which are texts.
    """
    return [
        c
        for c in categories
        if isinstance(c.get("name"), str)
        and c.get("supercategory") in (None, "", "none")
        and str(c.get("id")) not in used
        and any(o is not c and o.get("supercategory") == c.get("name") for o in categories)
    ]


def is_number(value: Any) -> bool:
    """Whether a value is a number, finite, and of a size that pixels have."""
    return type(value) in (int, float) and -1e9 < value < 1e9


def describe_encoding(raw: bytes) -> str:
    """What of a file's encoding has to change for pycocotools; empty if nothing has."""
    encoding = json.detect_encoding(raw)  # type: ignore[attr-defined]
    if encoding != "utf-8":
        name = "a byte order mark" if encoding == "utf-8-sig" else f"the encoding {encoding}"
        return f"{name} changed to plain text"
    if not raw.isascii() and codecs.lookup(locale.getpreferredencoding(False)).name != "utf-8":
        return "letters beyond ASCII escaped, which this locale cannot read"
    return ""


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


def refuse(
    found: Annotations,
    kind: str,
    wrong: Sequence[Entry],
    what: str,
    remedy: str,
    names: Sequence[str] = (),
) -> None:
    """Raise ``DataError`` if there are wrong entries; tells how many, and shows the first.

    Where faults are collected, it is added to them instead, and the entries are left out.

    Args:
        found: The annotations.
        kind: The list of entries: ``images``, ``annotations`` or ``categories``.
        wrong: Those of them that are wrong.
        what: What is wrong with them, in a clause.
        remedy: What to do.
        names: How they are called, where an entry does not say it.
    """
    if not wrong:
        return
    text = f"{len(wrong)} of {len(found.data[kind])} {kind} {what}"
    fault = Fault(str(found.path), text, len(wrong), tuple(names or map(_name, wrong)), remedy)
    if found.faults is None:
        first = f"{found.path}: {text}, the first is {_shown(wrong[0])}; {remedy}"
        raise DataError(fault.sentence if names else first)
    found.faults.append(fault)
    gone = {id(entry) for entry in wrong}
    found.data[kind] = [entry for entry in found.data[kind] if id(entry) not in gone]
    if kind == "images":
        kept = {str(image.get("id")) for image in found.data["images"]}
        without = {str(image.get("id")) for image in wrong} - kept
        found.data["annotations"] = [
            a for a in found.data["annotations"] if str(a.get("image_id")) not in without
        ]


def _shown(entry: Entry) -> str:
    text = json.dumps(entry, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _name(entry: Entry) -> str:
    """What an entry is found again by."""
    names = [f"{key} {entry[key]}" for key in ("id", "image_id") if key in entry]
    name = entry.get("file_name") or entry.get("name")
    return ", ".join([*([str(name)] if name else []), *names]) or _shown(entry)
