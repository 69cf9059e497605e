"""A teacher's classes in another order than the data's."""

from __future__ import annotations

import pytest

from kd_det.datasets.class_order import find_moved, simplify

DATA = ["apple", "Dining table", "pear"]


@pytest.mark.parametrize(
    "teacher",
    [
        DATA,
        ["Apple", " dining  TABLE", "PEAR"],
        ["pomme", "table", "poire"],
        ["apple", "dining_table"],
    ],
)
def test_names_at_their_place_or_unknown_are_not_moved(teacher: list[str]):
    assert find_moved(teacher, DATA) == []


@pytest.mark.parametrize(
    ("teacher", "moved"),
    [
        (["pear", "dining-table", "APPLE"], ["apple", "pear"]),
        (["cup", "apple", "pear"], ["apple"]),  # some names are on one side alone
    ],
)
def test_what_moved_is_told_with_both_places(teacher: list[str], moved: list[str]):
    assert [each.partition(" (")[0] for each in find_moved(teacher, DATA)] == moved


def test_names_of_signs_alone_stay_apart():
    assert simplify(["+", "-"]) == ["+", "-"]
