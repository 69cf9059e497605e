"""Cost of models: exact where it can be, fair where it is measured."""

from __future__ import annotations

import importlib.util
import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from kd_det.report import cost, machine
from kd_det.report.cost import interleaved, measure
from kd_det.report.runs import read_runs
from kd_det.report.validation import Validation

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
    (found,) = cost._measure([OneLayer().eval()], validation)
    assert found.flops == (2 * 8 * 3 * 9 * 100 if COUNTS else None)
    assert found.parameters == 8 * 3 * 9 + 8 + 2 * 8
    assert found.bytes == 4 * (found.parameters + 2 * 8) + 8  # running mean, variance; a counter
    assert 0 < found.low <= found.seconds <= found.high


def test_models_take_turns():
    calls = []
    times = interleaved([lambda: calls.append("a"), lambda: calls.append("b")], rounds=3, warm_up=2)
    assert calls == ["a", "b"] * 5
    assert [len(seconds) for seconds in times] == [3, 3]


def test_a_measurement_is_kept_until_something_changes(trained_runs, monkeypatch):
    runs = read_runs(list(trained_runs.values()))
    validation = Validation(runs[-1].cfg)
    found = measure(runs, validation)
    kept = trained_runs["distilled"] / "report_cost.json"
    assert json.loads(kept.read_text())["costs"][0]["parameters"] == found[0].parameters
    assert not COUNTS or found[0].flops > found[1].flops > 0
    assert found[1].parameters == found[2].parameters < found[0].parameters
    monkeypatch.setattr(cost, "_measure", lambda *_: pytest.fail("measured again"))
    assert measure(runs, validation) == found
    monkeypatch.setattr(cost, "processor", lambda: "another machine")
    with pytest.raises(pytest.fail.Exception, match="measured again"):
        measure(runs, validation)


@pytest.mark.parametrize(("threads", "told"), [(1, ", 1 thread on "), (2, ", 2 threads on ")])
def test_threads_decide_latency_and_are_told(monkeypatch, threads, told):
    monkeypatch.setattr(machine, "get_device", lambda: "cpu")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert told in machine.processor()
    finally:
        torch.set_num_threads(before)
