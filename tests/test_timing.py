"""Calls take turns, and each time is that of its call."""

from __future__ import annotations

import time

from kd_det.timing import one_round


def test_each_time_is_of_its_call_whoever_is_first():
    order: list[str] = []

    def slow() -> None:
        order.append("slow")
        time.sleep(0.02)

    calls = [slow, lambda: order.append("quick"), lambda: order.append("other")]
    for first, expected in enumerate(
        (["slow", "quick", "other"], ["quick", "other", "slow"], ["other", "slow", "quick"])
    ):
        order.clear()
        times = one_round(calls, "cpu", first + 3)
        assert order == expected
        assert times[0] >= 0.02 and len(times) == 3
