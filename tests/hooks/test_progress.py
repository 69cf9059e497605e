"""Progress never changes or loses what is iterated over."""

from __future__ import annotations

import pytest

from kd_det.hooks import _progress


@pytest.mark.parametrize("pause", [0, 60])
def test_every_batch_comes_through_once(monkeypatch, pause):
    """Also where a line is due before the first batch is done."""
    monkeypatch.setattr(_progress, "SECONDS_BETWEEN_LINES", pause)
    clock = iter(range(1, 100))
    monkeypatch.setattr(_progress.time, "monotonic", lambda: next(clock))
    assert list(_progress._logged([3, 1, 2], "Counting", 3)) == [3, 1, 2]
