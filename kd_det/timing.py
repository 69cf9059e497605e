"""Time calls in turns, so that other load affects all of them alike; time the parts of a step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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


class StepTimer:
    """Adds up the time of the parts of training steps, and never waits for a device.

    On a GPU, the time between two CUDA events on the stream of the part, read once the device has
    passed them; elsewhere, the host's time.

    Args:
        device: Where the steps run.
    """

    def __init__(self, device: torch.device | str) -> None:
        self.on_gpu = torch.device(device).type == "cuda"
        self._seconds: dict[str, float] = {}
        self._pending: list[tuple[str, Any, Any]] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time what runs within, as part ``name``."""
        if not self.on_gpu:
            start = time.perf_counter()
            yield
            self._add(name, time.perf_counter() - start)
            return
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        yield
        last.record()
        self._pending.append((name, first, last))

    def take(self) -> dict[str, float]:
        """Return the seconds of each part since the last call, as far as the device has come."""
        pending, self._pending = self._pending, []
        for name, first, last in pending:
            if last.query():
                self._add(name, first.elapsed_time(last) / 1000)
            else:
                self._pending.append((name, first, last))
        seconds, self._seconds = self._seconds, {}
        return seconds

    def _add(self, name: str, seconds: float) -> None:
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds
