"""What a report says of the machine that measured."""

from __future__ import annotations

import pytest
import torch

from kd_det.report import machine


@pytest.mark.parametrize(("threads", "told"), [(1, ", 1 thread on "), (2, ", 2 threads on ")])
def test_threads_decide_latency_and_are_told(monkeypatch, threads, told):
    monkeypatch.setattr(machine, "get_device", lambda: "cpu")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert told in machine.processor()
    finally:
        torch.set_num_threads(before)
