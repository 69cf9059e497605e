"""How numbers and names are written."""

from __future__ import annotations

import pytest

from kd_det.report.sections import _place, metric_name, number


@pytest.mark.parametrize(
    ("metric", "value", "sign", "shown"),
    [
        ("coco/bbox_mAP", 0.1234, False, "0.123"),
        ("coco/bbox_mAP_l", -1.0, False, "-"),
        ("coco/bbox_mAP", float("nan"), False, "-"),
        ("accuracy/top1", 91.234, True, "+91.23"),
        ("coco/bbox_mAP", -1.0, True, "-1.000"),
    ],
)
def test_numbers(metric, value, sign, shown):
    assert number(metric, value, sign) == shown


def test_names_of_metrics():
    names = ["coco/bbox_mAP_50", "coco/segm_mAP", "accuracy/top1"]
    assert [*map(metric_name, names)] == ["mAP 50", "segm mAP", "top1"]


@pytest.mark.parametrize(
    ("scalar", "place"),
    [
        ("nd/student_norm", ("nd norm", "run")),
        ("nd/teacher_norm", ("nd norm", "teacher of run")),
        ("nd/agreement", ("nd agreement", "run")),
        ("loss_review", ("loss review", "run")),
    ],
)
def test_student_and_teacher_share_a_figure(scalar, place):
    assert _place(scalar, "run") == place
