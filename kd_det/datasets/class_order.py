"""Compare the classes of a teacher with those of the data; standard library alone."""

from __future__ import annotations

import re
from collections.abc import Sequence


def simplify(names: Sequence[str]) -> list[str]:
    """Class names without capitals, and without spaces and signs between words."""
    return [re.sub(r"[\W_]+", "", str(name).casefold()) or str(name) for name in names]


def find_moved(teacher: Sequence[str], data: Sequence[str]) -> list[str]:
    """Describe each class of the data that has another place among the teacher's.

    A teacher of such classes would teach wrong labels. Names that are on one side alone, or there
    twice, say nothing.
    """
    expected, found = simplify(data), simplify(teacher)
    return [
        f"{name} (expected at {place}, found at {found.index(key)})"
        for place, (name, key) in enumerate(zip(data, expected))
        if expected.count(key) == found.count(key) == 1 and found.index(key) != place
    ]
