"""What a data set holds, as rows of text for a terminal and a page."""

from __future__ import annotations

from collections.abc import Sequence

from kd_det.datasets.inspection import Inspection

Row = tuple[str, ...]


def contents(inspection: Inspection) -> list[Row]:
    """The name of a figure, and its value for each part."""
    parts = list(inspection.parts.values())

    def triple(name: str, values: Sequence[Sequence[float]]) -> Row:
        return (name, *(" / ".join(map(str, each)) for each in values))

    def number(name: str, values: Sequence[int]) -> Row:
        return (name, *map(str, values))

    long, short = inspection.scale
    return [
        number("images", [p.images for p in parts]),
        number("boxes", [p.boxes for p in parts]),
        number("images without a box", [p.empty for p in parts]),
        number("crowd or difficult boxes", [p.crowds for p in parts]),
        number("most boxes in an image", [p.most for p in parts]),
        triple("width, least / median / most", [p.widths for p in parts]),
        triple("height", [p.heights for p in parts]),
        triple(f"side of boxes at {long} x {short}, quartiles", [p.sides for p in parts]),
        *(
            number(f"boxes smaller than {cell} x {cell} there", [p.tiny[cell] for p in parts])
            for cell in parts[0].tiny
        ),
    ]


def balance(inspection: Inspection) -> list[Row]:
    """A class, and its boxes and images in each part; those with most boxes first."""
    parts = inspection.parts
    names = sorted(inspection.classes, key=lambda c: -parts["train"].by_class[c])
    return [
        (name, *(f"{p.by_class[name]} ({p.images_by_class[name]})" for p in parts.values()))
        for name in names
    ]
