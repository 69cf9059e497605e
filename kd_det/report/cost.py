"""Cost of models: parameters, FLOPs, size of the weights, latency."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kd_det.files import write_atomically
from kd_det.progress import progress
from kd_det.report.machine import processor
from kd_det.report.runs import Run
from kd_det.report.validation import Validation
from kd_det.timing import one_round

ROUNDS = 20
WARM_UP = 3
FILE_NAME = "report_cost.json"


@dataclass(frozen=True)
class Cost:
    """Cost of one model.

    Args:
        parameters: Number of parameters.
        bytes: Size of weights and buffers.
        flops: Floating-point operations for one image, see :func:`count_flops`.
        seconds: Median time for one image, from the normalised image to the result.
        low: First quartile of that time.
        high: Third quartile.
    """

    parameters: int
    bytes: int
    flops: int | None
    seconds: float
    low: float
    high: float


def measure(runs: Sequence[Run], validation: Validation) -> list[Cost]:
    """Measure the cost of each run's model on the first validation image, side by side.

    The result is kept as ``report_cost.json`` in the last run's folder, and holds while models,
    data and machine are the same.
    """
    path = runs[-1].folder / FILE_NAME
    key = [processor(), *(validation.key(run) for run in runs)]
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["key"] == key:
            return [Cost(**cost) for cost in kept["costs"]]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # measured for the first time
    costs = _measure([validation.model(run) for run in runs], validation)
    text = json.dumps({"key": key, "costs": [asdict(cost) for cost in costs]}, indent=2)
    write_atomically(Path(path), text.encode())
    return costs


@torch.no_grad()
def _measure(models: Sequence[Any], validation: Validation) -> list[Cost]:
    batch = validation.first_image()
    passes = [_prediction(model, batch) for model in models]
    flops = [count_flops(run_once) for run_once in passes]
    times = interleaved(passes, ROUNDS, WARM_UP, validation.device)
    costs = []
    for model, operations, seconds in zip(models, flops, times):
        low, median, high = statistics.quantiles(seconds, n=4)
        state = model.state_dict().values()
        size = sum(tensor.numel() * tensor.element_size() for tensor in state)
        costs.append(Cost(parameters(model), size, operations, median, low, high))
    return costs


def count_flops(call: Callable[[], Any]) -> int | None:
    """Floating-point operations of convolutions and matrix products; a multiply-add counts as two.

    None where torch cannot count them (before 2.1).
    """
    try:
        from torch.utils.flop_counter import FlopCounterMode
    except ImportError:
        return None
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _prediction(model: Any, batch: dict[str, Any]) -> Callable[[], Any]:
    data = model.data_preprocessor(batch, False)
    return lambda: model(**data, mode="predict")


def interleaved(
    calls: Sequence[Callable[[], Any]], rounds: int, warm_up: int = 0, device: str = "cpu"
) -> list[list[float]]:
    """Measure the seconds of each call in each round, after ``warm_up`` rounds more."""
    turns = progress(range(warm_up + rounds), "Measuring latency")
    times = [one_round(calls, device) for _ in turns]
    return [list(seconds) for seconds in zip(*times[warm_up:])]
