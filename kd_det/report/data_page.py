"""A page on a data set: numbers, class balance, faults, and pictures with their boxes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from kd_det.datasets import summary
from kd_det.datasets.inspection import Inspection
from kd_det.files import write_atomically
from kd_det.report.figures import counts, uri
from kd_det.report.machine import software
from kd_det.report.page import Figure, Section, Table, render
from kd_det.report.pictures import Box, Picture, embed
from kd_det.version import __version__

COLORS = {"train": "#1b9e77", "val": "#d95f02", "test": "#7570b3"}
# Of boxes by class; with more classes, by their order in the picture.
BOX_COLORS = (
    "#ffd43b", "#4dabf7", "#ff6b6b", "#69db7c", "#da77f2", "#ffa94d", "#3bc9db", "#f783ac",
    "#a9e34b", "#e9ecef",
)  # fmt: skip
# Of the classes with most boxes; a figure of more cannot be read.
FIGURE_CLASSES = 40


def write_page(inspection: Inspection, path: Path, pictures: int = 24) -> None:
    """Write the page to ``path``, with a number of ``pictures``.

    Raises:
        OSError: If it cannot be written.
    """
    sections = [_summary(inspection), _balance(inspection), _faults(inspection)]
    shares = {"val": pictures // 3, "train": pictures - pictures // 3}
    sections += [_pictures(inspection, name, shares[name]) for name in ("train", "val")]
    footer = f"Made by kd_det {__version__}; {software()}."
    page = render(f"Data: {inspection.root.resolve().name}", sections, footer)
    write_atomically(path, page.encode("utf-8", "replace"))


def _summary(inspection: Inspection) -> Section:
    facts = [
        (str(value), f"{what}, {name}")
        for name, part in inspection.parts.items()
        for value, what in ((part.images, "images"), (part.boxes, "boxes"))
    ]
    text = " ".join(f"{note[:1].upper()}{note[1:]}." for note in inspection.notes)
    table = Table(["", *inspection.parts], summary.contents(inspection))
    return Section("What it holds", text, table=table, facts=facts)


def _balance(inspection: Inspection) -> Section:
    parts, rows = inspection.parts, summary.balance(inspection)
    shown = [row[0] for row in rows[:FIGURE_CLASSES]]
    series = {part: [p.by_class[name] for name in shown] for part, p in parts.items()}
    figure = Figure(uri(counts(shown, series, COLORS, "boxes")), "Boxes of each class")
    text = f"{len(rows)} classes; boxes, and in brackets the images that show one."
    return Section("Class balance", text, [figure], Table(["class", *parts], rows))


def _faults(inspection: Inspection) -> Section:
    if not inspection.faults:
        return Section("Faults", "None were found.", facts=[("0", "faults")])
    rows = [(fault.severity, str(fault.count), fault.sentence) for fault in inspection.faults]
    text = "An error keeps a training from starting; what was repaired is so in a copy."
    return Section("Faults", text, table=Table(["", "number", "what"], rows, wrapped=True))


def _pictures(inspection: Inspection, name: str, number: int) -> Section:
    """Images with their boxes, so that as many classes as possible are seen."""
    found = inspection.annotations[name]
    names = {c["id"]: str(c["name"]) for c in found.data["categories"]}
    boxes: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for box in found.data["annotations"]:
        boxes[box["image_id"]].append(box)
    title = f"Pictures: {name}"
    result: list[Picture] = []
    for image in _varied(found.data["images"], boxes):
        if len(result) == number:
            break
        path = found.images / image["file_name"]
        try:
            uri, width, height, scale = embed(path)
        except Exception:  # an image that cannot be read is among the faults
            continue
        counts = Counter(names[box["category_id"]] for box in boxes[image["id"]])
        colors = _colors(inspection.classes, counts)
        shown = [
            Box(x * scale, y * scale, w * scale, h * scale, "", None, colors[name])
            for box in boxes[image["id"]]
            for x, y, w, h in [box["bbox"]]
            for name in [names[box["category_id"]]]
        ]
        key = [(colors[name], f"{name} {count}") for name, count in counts.most_common()]
        result.append(Picture(path.name, uri, width, height, {"boxes": shown}, {}, key))
    if not result:
        return Section(title, "Left out: no image can be shown.")
    return Section(title, f"{len(result)} images, rare classes first.", pictures=result)


def _colors(classes: Sequence[str], shown: Iterable[str]) -> dict[str, str]:
    """Of the boxes of a picture, by class."""
    order = classes if len(classes) <= len(BOX_COLORS) else shown
    return {name: BOX_COLORS[i % len(BOX_COLORS)] for i, name in enumerate(order)}


def _varied(
    images: list[dict[str, Any]], boxes: dict[Any, list[dict[str, Any]]]
) -> Iterator[dict[str, Any]]:
    """Images in an order in which each next one shows the class that was seen least so far."""
    by_class: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for image in images:
        for label in {box["category_id"] for box in boxes.get(image["id"], ())}:
            by_class[label].append(image)
    total = Counter({label: len(shown) for label, shown in by_class.items()})
    given: set[Any] = set()
    seen: Counter[Any] = Counter()
    while by_class:
        label = min(by_class, key=lambda c: (seen[c], total[c]))
        image = by_class[label].pop(0)
        if not by_class[label]:
            del by_class[label]
        if image["id"] not in given:
            given.add(image["id"])
            seen.update(box["category_id"] for box in boxes[image["id"]])
            yield image
    yield from (image for image in images if image["id"] not in given)
