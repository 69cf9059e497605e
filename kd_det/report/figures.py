"""Figures of a report, as data URIs of SVG that need nothing else, and panels of larger ones.

They are narrow, so that their text can be read on a phone.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kd_det.report.fonts import fonts_for

WIDTH, HEIGHT = 5.0, 3.1  # inches
STYLE: dict[Any, Any] = {
    "font.size": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "kd_det",  # the same figure, the same file
}
Points = Mapping[int, float]
Show = Callable[[str], str]  # a text as Matplotlib takes it


@dataclass(frozen=True)
class Panel:
    """What is drawn on axes of its own.

    Args:
        draw: Draws on axes, and shows texts by the function that it is given.
        texts: Those that it shows, for which fonts are chosen.
        height: Where it is a figure of its own, inches.
    """

    draw: Callable[[Axes, Show], None]
    texts: Sequence[str]
    height: float = HEIGHT


def curves(
    series: Mapping[str, Points],
    colors: Mapping[str, str],
    x_label: str,
    y_label: str,
    wide: bool = False,
) -> Panel:
    """Draw lines over steps; with ``wide``, logarithmic where values span more than 30 times."""

    def draw(axes: Axes, show: Show) -> None:
        for name, points in series.items():
            marker = "o" if len(points) < 15 else None
            axes.plot(
                list(points), list(points.values()), color=colors[name], label=show(name),
                marker=marker, markersize=3.5, linewidth=1.6,
            )  # fmt: skip
        values = np.array([v for points in series.values() for v in points.values()])
        if wide and values.min() > 0 and values.max() / values.min() > 30:
            axes.set_yscale("log")
        axes.set_xlabel(show(x_label))
        axes.set_ylabel(show(y_label))
        if len(series) > 1:
            axes.legend()

    return Panel(draw, [*series, x_label, y_label])


def gains(
    names: Sequence[str],
    before: Sequence[float],
    after: Sequence[float],
    colors: tuple[str, str],
    labels: tuple[str, str],
    x_label: str,
) -> Panel:
    """Draw two values for each name and a line between them, the first name on top."""

    def draw(axes: Axes, show: Show) -> None:
        rows = np.arange(len(names))
        axes.hlines(rows, before, after, color="#bbbbbb", linewidth=3)
        for values, color, label in zip((before, after), colors, labels):
            axes.plot(values, rows, "o", color=color, label=show(label), markersize=5)
        axes.set_yticks(rows, [*map(show, names)])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlabel(show(x_label))
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.0), ncols=2, borderaxespad=-1.8)

    return Panel(draw, [*names, *labels, x_label], max(HEIGHT, 0.7 + 0.21 * len(names)))


def counts(
    names: Sequence[str],
    series: Mapping[str, Sequence[float]],
    colors: Mapping[str, str],
    x_label: str,
) -> Panel:
    """Draw numbers of several series for each name as bars, the first name on top."""

    def draw(axes: Axes, show: Show) -> None:
        rows, height = np.arange(len(names)), 0.8 / len(series)
        for i, (name, values) in enumerate(series.items()):
            place = rows + (i - (len(series) - 1) / 2) * height
            axes.barh(place, values, height, color=colors[name], label=show(name))
        axes.set_yticks(rows, [show(name) for name in names])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlabel(show(x_label))
        axes.grid(axis="y", visible=False)
        # Above, where no bar is.
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(series))

    return Panel(draw, [*names, *series, x_label], 1.2 + 0.32 * len(names))


def distributions(
    values: Mapping[str, np.ndarray], colors: Mapping[str, str], x_label: str
) -> Panel:
    """Draw densities of several sets of numbers, on the same bins."""

    def draw(axes: Axes, show: Show) -> None:
        # Without the outermost, which would squeeze the rest.
        low, high = np.quantile(np.concatenate(list(values.values())), [0.002, 0.998])
        bins = np.linspace(low, high if high > low else low + 1, 41).tolist()
        for name, numbers in values.items():
            color, label = colors[name], show(name)
            axes.hist(numbers, bins, density=True, histtype="stepfilled", alpha=0.25, color=color)
            axes.hist(
                numbers, bins, density=True, histtype="step", linewidth=1.6, color=color,
                label=label,
            )  # fmt: skip
        axes.set_xlabel(show(x_label))
        axes.set_yticks([])
        axes.legend()

    return Panel(draw, [*values, x_label])


def similarities(matrix: np.ndarray, names: Sequence[str]) -> Panel:
    """Draw a square matrix of cosines ``[C, C]``; names where there is room for them."""

    def draw(axes: Axes, show: Show) -> None:
        lowest = min(0.0, float(matrix.min()))
        image = axes.imshow(matrix, vmin=lowest, vmax=1, cmap="viridis")
        axes.grid(False)
        axes.figure.colorbar(image, ax=axes, shrink=0.8, label="cosine")
        if len(names) <= 25:
            shown = [*map(show, names)]
            axes.set_xticks(range(len(names)), shown, rotation=90)
            axes.set_yticks(range(len(names)), shown)

    return Panel(draw, names, WIDTH * 0.86)


def svg(
    panels: Sequence[Panel], width: float, height: float, columns: int = 0, ratios: Any = None
) -> bytes:
    """Draw panels as one SVG file.

    Args:
        panels: Row by row.
        width: Of the whole, inches.
        height: Of the whole, inches.
        columns: Panels of a row; 0 for all of them.
        ratios: Heights of the rows, to each other.
    """
    columns = columns or len(panels)
    fonts = fonts_for(text for panel in panels for text in panel.texts)
    buffer = io.BytesIO()
    with matplotlib.rc_context({**STYLE, "font.family": fonts.families}):
        # Not pyplot's: that keeps figures, and asks for a display.
        figure = Figure(figsize=(width, height), layout="constrained")
        places = figure.subplots(
            len(panels) // columns, columns, squeeze=False, height_ratios=ratios
        )
        for axes, panel in zip(places.flat, panels):
            panel.draw(axes, fonts.show)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing)
    return buffer.getvalue()


def uri(panel: Panel) -> str:
    """A figure of one panel as a data URI."""
    data = svg([panel], WIDTH, panel.height)
    return "data:image/svg+xml;base64," + base64.b64encode(data).decode()
