"""Cost of models: parameters, FLOPs, size of the weights, latency."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from kd_det.progress import progress
from kd_det.report.validation import Validation
from kd_det.timing import one_round

ROUNDS = 20
WARM_UP = 3


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


@torch.no_grad()
def measure(models: Sequence[Any], validation: Validation) -> list[Cost]:
    """Measure the cost of models on the first validation image, side by side."""
    batch = validation.first_image()
    passes = [_prediction(model, batch) for model in models]
    # All models take their turn, so that what slows the machine slows each of them.
    rounds = [
        one_round(passes, validation.device)
        for _ in progress(range(WARM_UP + ROUNDS), "Measuring latency")
    ]
    costs = []
    for model, run_once, seconds in zip(models, passes, zip(*rounds[WARM_UP:])):
        low, median, high = statistics.quantiles(seconds, n=4)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        tensors = model.state_dict().values()
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        costs.append(Cost(parameters, size, count_flops(run_once), median, low, high))
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


def _prediction(model: Any, batch: dict[str, Any]) -> Callable[[], Any]:
    data = model.data_preprocessor(batch, False)
    return lambda: model(**data, mode="predict")
