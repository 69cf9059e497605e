"""Cost of models: parameters, FLOPs, size of the weights, latency."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

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
        flops: Floating-point operations for one image; a multiply-add counts as two.
        seconds: Median time for one image, from the normalised image to the result.
        low: First quartile of that time.
        high: Third quartile.
    """

    parameters: int
    bytes: int
    flops: int
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
    write_atomically(path, text.encode())
    return costs


@torch.no_grad()
def _measure(models: Sequence[Any], validation: Validation) -> list[Cost]:
    batch = validation.first_image()
    passes = [_prediction(model, batch) for model in models]
    # All models take their turn, so that what slows the machine slows each of them.
    rounds = [
        one_round(passes, validation.device)
        for _ in progress(range(WARM_UP + ROUNDS), "Measuring latency")
    ]
    costs = []
    for model, run_once, seconds in zip(models, passes, zip(*rounds[WARM_UP:])):
        with FlopCounterMode(display=False) as counter:
            run_once()
        low, median, high = statistics.quantiles(seconds, n=4)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        size = sum(tensor.nbytes for tensor in model.state_dict().values())
        costs.append(Cost(parameters, size, counter.get_total_flops(), median, low, high))
    return costs


def _prediction(model: Any, batch: dict[str, Any]) -> Callable[[], Any]:
    data = model.data_preprocessor(batch, False)
    return lambda: model(**data, mode="predict")
