"""Calls take turns, and each time is that of its call."""

from __future__ import annotations

import time

import torch
from small import no_waits

from kd_det.timing import StepTimer, one_round, synchronize


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


def test_parts_are_added_up_until_they_are_taken(device):
    timer = StepTimer(device)
    x = torch.ones(64, 64, device=device)
    for _ in range(2):
        with no_waits(device), timer.part("a"):
            x @ x
        with no_waits(device), timer.part("b"):
            x @ x
    with no_waits(device):
        first = timer.take()
    synchronize(device)  # what a device had not reached then comes now
    second = timer.take()
    total = {name: first.get(name, 0) + second.get(name, 0) for name in "ab"}
    assert min(total.values()) > 0 and not timer.take()
