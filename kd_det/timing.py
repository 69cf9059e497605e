"""Time calls in turns, so that other load on the machine affects all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch


def one_round(
    calls: Sequence[Callable[[], Any]], device: torch.device | str, first: int = 0
) -> list[float]:
    """Time each call once, one after the other; seconds.

    Args:
        calls: The calls to be timed.
        device: Device to synchronize before and after each call.
        first: Number of the call to begin with, modulo the number of calls; the number of the
            round gives each call its turn.
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
    """Wait for all work queued on a GPU; does nothing for a CPU."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
