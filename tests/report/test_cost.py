"""Cost of models: exact where it can be, fair where it is measured."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace

import torch
from torch import nn

from kd_det.report import machine
from kd_det.report.cost import measure

COUNTS = importlib.util.find_spec("torch.utils.flop_counter") is not None  # since torch 2.1


class OneLayer(nn.Module):
    """A convolution of 3 to 8 channels, 3x3, on 10 x 10 pixels: 8 * 3 * 9 * 100 multiply-adds."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)

    def data_preprocessor(self, batch: dict, training: bool) -> dict:
        return batch

    def forward(self, inputs: torch.Tensor, mode: str) -> torch.Tensor:
        return self.norm(self.layer(inputs))


def test_what_is_counted_is_exact():
    validation = SimpleNamespace(
        first_image=lambda: dict(inputs=torch.zeros(1, 3, 10, 10)), device="cpu"
    )
    (found,) = measure([OneLayer().eval()], validation)
    assert found.flops == (2 * 8 * 3 * 9 * 100 if COUNTS else None)
    assert found.parameters == 8 * 3 * 9 + 8 + 2 * 8
    assert found.bytes == 4 * (found.parameters + 2 * 8) + 8  # running mean, variance; a counter
    assert 0 < found.low <= found.seconds <= found.high


def test_threads_decide_latency_and_are_told(monkeypatch):
    for threads, told in ((1, ", 1 thread on "), (2, ", 2 threads on ")):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert told in machine.processor("cpu")
