"""How numbers and names are written."""

from __future__ import annotations

import pytest

from kd_det.report.sections import _place, metric_name, number


def test_numbers():
    assert number("coco/bbox_mAP", 0.1234) == "0.123"
    assert number("coco/bbox_mAP_l", -1.0) == number("coco/bbox_mAP", float("nan")) == "-"
    assert number("accuracy/top1", 91.234, sign=True) == "+91.23"
    assert number("coco/bbox_mAP", -1.0, sign=True) == "-1.000"


def test_names_of_metrics():
    assert metric_name("coco/bbox_mAP_50") == "mAP 50"
    assert metric_name("coco/segm_mAP") == "segm mAP"
    assert metric_name("accuracy/top1") == "top1"


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
