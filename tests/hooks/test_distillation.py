"""What hooks on distillation losses share."""

from __future__ import annotations

import pytest

from kd_det.hooks._distillation import same_names


def test_names_are_the_same_but_for_case_and_blanks():
    assert same_names(["apple", "pear"], ["apple", "pear"])
    assert same_names(["Apple", " dining  TABLE"], ["apple", "Dining table "])
    assert not same_names(["apple", "pear"], ["pomme", "poire"])
    assert not same_names(["apple"], ["apple", "pear"])


@pytest.mark.parametrize("theirs", [["pear", "apple"], ["Pear", "apple"], ["PEAR ", "Apple"]])
def test_the_same_names_in_another_order_are_refused(theirs):
    with pytest.raises(
        ValueError, match=r"in another order .*expected .*, found \['apple', 'pear'\]"
    ):
        same_names(theirs, ["apple", "pear"])
