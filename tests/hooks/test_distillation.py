"""The teacher's classes are compared with the data's before training."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from kd_det.hooks._distillation import check_teacher_classes


def check(teacher: list[str]) -> list[str]:
    warned: list[str] = []
    runner = SimpleNamespace(
        train_dataloader=SimpleNamespace(
            dataset=SimpleNamespace(metainfo=dict(classes=("apple", "Dining table")))
        ),
        logger=SimpleNamespace(warning=warned.append),
    )
    model = SimpleNamespace(teacher_classes=teacher)
    for _ in range(2):
        check_teacher_classes(runner, model)
    return warned


@pytest.mark.parametrize("teacher", [["apple", "dining table"], ["APPLE", " Dining  TABLE"]])
def test_case_and_blanks_do_not_matter(teacher):
    assert check(teacher) == []


def test_other_names_are_warned_about_once():
    assert len(check(["pomme", "table"])) == 1


@pytest.mark.parametrize("teacher", [["Dining table", "Apple"], ["cup", "apple"]])
def test_another_order_is_refused_also_of_some(teacher):
    with pytest.raises(ValueError, match=r"in another order .*apple \(expected at 0, found at 1\)"):
        check(teacher)
