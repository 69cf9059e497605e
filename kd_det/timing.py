"""Times things against each other: in turns, so that what else a machine does hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch


def one_round(
    calls: Sequence[Callable[[], Any]], device: torch.device | str, first: int = 0
) -> list[float]:
    """Seconds of each call, made one after the other.

    Args:
        calls: What is timed.
        device: Waited for before and after each call.
        first: Index of the call that is made first, of any number of turns.
    """
    times = [0.0] * len(calls)
    for i in range(first, first + len(calls)):
        synchronize(device)
        start = time.perf_counter()
        calls[i % len(calls)]()
        synchronize(device)
        times[i % len(calls)] = time.perf_counter() - start
    return times


def synchronize(device: torch.device | str) -> None:
    """Wait until a GPU has done what it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
