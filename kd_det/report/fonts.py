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
    characters = frozenset("".join(texts)) - set("\n\t")
    families = list(matplotlib.rcParams["font.sans-serif"][:1])
    lacking = characters - _characters(findfont(FontProperties(family=families)))
    # Names of one class are mostly in one script: the font with most of them comes first.
    while lacking:
        family, found = _richest(lacking)
        if not found:
            break
        families.append(family)
        lacking -= found
    return Fonts(tuple(families), lacking)


@cache
def _richest(wanted: frozenset[str]) -> tuple[str, frozenset[str]]:
    """Find the font with most of the characters, and these."""
    best = ("", frozenset[str]())
    # Matplotlib complains of families without a regular font.
    regular = {
        each.name
        for each in fontManager.ttflist
        if {each.style, each.variant, each.stretch} == {"normal"} and each.weight in (400, "normal")
    }
    for name in sorted(regular):
        if name.startswith("Last Resort"):  # has a box for every character there is
            continue
        try:
            found = wanted & _characters(findfont(FontProperties(family=[name])))
        except (OSError, RuntimeError):  # uninstalled since Matplotlib listed it, or damaged
            continue
        if len(found) > len(best[1]):
            best = (name, found)
    return best


@cache
def _characters(path: str) -> frozenset[str]:
    return frozenset(map(chr, get_font(path).get_charmap()))
