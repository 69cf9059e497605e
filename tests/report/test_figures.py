"""Figures are SVG that needs nothing else, and the same for the same numbers."""

from __future__ import annotations

import base64
from xml.etree import ElementTree

import numpy as np
import pytest

from kd_det.report import figures, fonts

COLORS = {"plain": "#d95f02", "distilled": "#1b9e77"}


def svg(panel: figures.Panel) -> str:
    kind, data = figures.uri(panel).split(",", 1)
    assert kind == "data:image/svg+xml;base64"
    text = base64.b64decode(data).decode()
    assert ElementTree.fromstring(text).tag.endswith("svg")
    return text


def test_all_figures_are_drawn_in_their_colors():
    rows = np.random.default_rng(0).normal(size=(2, 50))
    drawn = [
        figures.curves({"plain": {1: 0.1, 2: 0.2}, "distilled": {1: 0.3}}, COLORS, "epoch", "mAP"),
        figures.gains(["a", "b"], [0.1, 0.2], [0.3, 0.1], tuple(COLORS.values()), ("p", "d"), "AP"),
        figures.distributions(dict(zip(COLORS, rows)), COLORS, "norm"),
    ]
    for panel in drawn:
        assert all(color in svg(panel) for color in COLORS.values())
    again = figures.distributions(dict(zip(COLORS, rows)), COLORS, "norm")
    assert svg(again) == svg(drawn[-1])


def test_degenerate_numbers_are_drawn():
    svg(figures.curves({"plain": {1: float("nan")}}, COLORS, "epoch", "loss", wide=True))
    svg(figures.curves({"plain": {1: 0.0, 2: 5.0}}, COLORS, "epoch", "loss", wide=True))
    svg(figures.distributions({"plain": np.zeros(3)}, COLORS, "norm"))
    svg(figures.similarities(np.eye(1), ["one"]))


def test_only_losses_over_decades_are_logarithmic():
    series = {"plain": {step: 10.0**-step for step in range(4)}}
    drawn = {wide: svg(figures.curves(series, COLORS, "epoch", "loss", wide)) for wide in (0, 1)}
    assert drawn[0] != drawn[1]


def test_eighty_classes_stay_readable():
    names = [f"class {i}" for i in range(80)]
    values = np.linspace(0, 1, 80)
    height = {}
    for n in (8, 80):
        drawn = figures.gains(
            names[:n], values[:n], values[:n], ("#111111", "#222222"), ("a", "b"), "AP"
        )
        height[n] = float(ElementTree.fromstring(svg(drawn)).get("height")[:-2])
    assert height[80] / 80 > 14  # points for each
    assert height[8] < 250
    svg(figures.similarities(np.eye(80), names))


@pytest.mark.filterwarnings("error")
def test_names_in_any_script_are_drawn_or_escaped(monkeypatch):
    """Whatever fonts are installed, without a warning; a dollar begins no formula."""
    names = ["苹果", "кот", "price $x^2$", "\U0010fffd"]
    series = {name: {1: 0.1, 2: 0.2} for name in names}
    colors = dict.fromkeys(names, "#111111")
    for installed in (fonts.fontManager.ttflist, []):
        monkeypatch.setattr(fonts.fontManager, "ttflist", installed)
        svg(figures.similarities(np.eye(4), names))
        svg(figures.curves(series, colors, names[0], names[2]))
        svg(figures.distributions(dict.fromkeys(names, np.arange(3.0)), colors, names[0]))
        svg(figures.gains(names, [0.1] * 4, [0.2] * 4, ("#111111", "#222222"), ("苹", "b"), "m"))


def test_a_font_with_the_characters_is_taken():
    """STIXGeneral comes with Matplotlib and has some that its first font lacks."""
    lacking = min(fonts._characters("STIXGeneral") - fonts._characters("DejaVu Sans"))
    found = fonts.fonts_for(["a", lacking])
    assert len(found.families) == 2 and not found.lacking and found.show(lacking) == lacking
    nowhere = fonts.fonts_for(["a\U0010fffdb\n"])
    assert nowhere.show("a\U0010fffd\n") == "a\\u10fffd\n" and len(nowhere.families) == 1
