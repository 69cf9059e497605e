"""The page: sections of text, figures, a table and pictures, in one file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined

from kd_det.report.pictures import Picture


@dataclass(frozen=True)
class Figure:
    """An image as a data URI, and its caption."""

    uri: str
    caption: str


@dataclass(frozen=True)
class Table:
    """Rows of text; the first cell of each names it. With ``wrapped``, cells are sentences."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    wrapped: bool = False


@dataclass(frozen=True)
class Section:
    """A part of the page. If it has a text alone, this says why the rest is left out."""

    title: str
    text: str
    figures: Sequence[Figure] = ()
    table: Table | None = None
    pictures: Sequence[Picture] = ()
    facts: Sequence[tuple[str, str]] = ()  # a number, and its meaning

    @property
    def left_out(self) -> bool:
        return not (self.figures or self.table or self.pictures or self.facts)


def render(title: str, sections: Sequence[Section], footer: str) -> str:
    """Render the HTML, which loads nothing else."""
    environment = Environment(
        loader=PackageLoader("kd_det.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("report.html.j2")
    return template.render(title=title, sections=sections, footer=footer)
