"""Text in columns, for tables in a terminal and a log."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """One line for each row, cells of a column below each other; rows may end early."""
    width = max(map(len, rows))
    full = [[*row, *[""] * (width - len(row))] for row in rows]
    widths = [max(map(len, column)) for column in zip(*full)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in full]
