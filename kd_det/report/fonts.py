"""Fonts for names in any script, of those that are installed."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

import matplotlib
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font


class Fonts(NamedTuple):
    """Font families in order, and the characters that none of them has."""

    families: tuple[str, ...]
    lacking: frozenset[str]

    def show(self, text: str) -> str:
        """Convert a text for Matplotlib: no formula, and escapes for missing characters."""
        shown = "".join(f"\\u{ord(c):04x}" if c in self.lacking else c for c in text)
        return shown.replace("$", r"\$")


def fonts_for(texts: Iterable[str]) -> Fonts:
    """Choose Matplotlib's own font, and further ones for the characters that it lacks."""
    lacking = frozenset("".join(texts)) - set("\n\t")
    family = matplotlib.rcParams["font.sans-serif"][0]
    families = []
    while family is not None:
        families.append(family)
        lacking -= _characters(family)
        # Names of one class are mostly in one script: the font with most of them comes first.
        found = {name: len(lacking & _characters(name)) for name in _regular_fonts() if lacking}
        family = max(found, key=found.__getitem__) if any(found.values()) else None
    return Fonts(tuple(families), lacking)


def _regular_fonts() -> list[str]:
    """List the families with a regular font; Matplotlib complains of the others."""
    names = {
        each.name
        for each in fontManager.ttflist
        if {each.style, each.variant, each.stretch} == {"normal"} and each.weight in (400, "normal")
    }
    # That one has a box for every character.
    return sorted(name for name in names if not name.startswith("Last Resort"))


@cache
def _characters(family: str) -> frozenset[str]:
    try:
        path = findfont(FontProperties(family=[family]))
        return frozenset(map(chr, get_font(path).get_charmap()))
    except (OSError, RuntimeError):  # uninstalled since Matplotlib listed it, or damaged
        return frozenset()
