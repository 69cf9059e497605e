"""Which runs stand for their kind, and how much of the gap is closed."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from kd_det.report.comparison import Comparison


def comparison(**values: float) -> Comparison:
    """Runs named ``<role>_<number>`` of the given mAP; NaN for one that finds nothing."""
    runs = [SimpleNamespace(name=name, role=name.split("_")[0]) for name in values]
    found = {
        name: SimpleNamespace(metrics={} if math.isnan(v) else {"coco/bbox_mAP": v, "other": 1.0})
        for name, v in values.items()
    }
    return Comparison(runs, None, found, {})


@pytest.mark.parametrize(
    ("plain", "teacher", "distilled", "closed"),
    [
        (0.2, 0.6, 0.3, 0.25),
        (0.2, 0.6, 0.1, -0.25),
        (0.6, 0.2, 0.3, None),
        (0.2, 0.6, math.nan, None),
        (math.nan, 0.6, 0.3, None),
    ],
)
def test_gap_closed(plain, teacher, distilled, closed):
    found = comparison(plain_1=plain, teacher_1=teacher, distilled_1=distilled)
    assert found.gap_closed(found.runs[2]) == (closed and pytest.approx(closed))


def test_the_best_of_each_kind_is_chosen():
    found = comparison(
        teacher_1=0.5, plain_1=0.1, plain_2=0.2, distilled_1=math.nan, distilled_2=0.3
    )
    assert [run.name for run in found.chosen] == ["teacher_1", "plain_2", "distilled_2"]
    assert found.metric == "coco/bbox_mAP"
    assert [found.gap_closed(run) for run in found.runs[:3]] == [None] * 3
    assert found.gap_closed(found.runs[3]) is None
    assert found.gap_closed(found.runs[4]) == pytest.approx(1 / 3)
    assert comparison(plain_1=0.1).best("teacher") is None


def test_runs_of_a_kind_have_colors_of_their_own():
    found = comparison(**{f"distilled_{i}": 0.1 for i in range(5)}, plain_1=0.1)
    assert len(set(found.colors.values())) == 6


def test_nothing_found_is_no_reason_to_fail():
    found = comparison(plain_1=math.nan, distilled_1=math.nan)
    assert found.metric == "coco/bbox_mAP"
    assert math.isnan(found.value(found.runs[0]))
    assert len(found.chosen) == 2
