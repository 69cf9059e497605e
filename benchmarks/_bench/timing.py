"""Times several things against each other in one process: interleaved, medians, paired ratios."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from kd_det.timing import one_round, synchronize

Work = Mapping[str, Callable[[], object]]
Times = dict[str, list[float]]


@dataclass(frozen=True)
class Budget:
    """How long one case is measured: for about ``seconds``, but at least ``rounds`` rounds."""

    seconds: float
    rounds: int
    device: torch.device


def interleave(work: Work, budget: Budget) -> Times:
    """Seconds of each call; a round calls each of ``work`` once, in turning order."""
    calls = list(work.values())
    for _ in range(min(2, budget.rounds)):  # memory pools, algorithms chosen by size
        one_round(calls, budget.device)
    start, found = time.perf_counter(), list[list[float]]()
    while len(found) < budget.rounds or time.perf_counter() - start < budget.seconds:
        found.append(one_round(calls, budget.device, first=len(found)))
    return {name: list(seconds) for name, seconds in zip(work, zip(*found))}


def ratio(times: Times, of: str, to: Sequence[str]) -> float:
    """Median over rounds of the time of ``of`` by the sum of those of ``to``.

    What slows the machine for a while slows a whole round, and leaves its ratio.
    """
    rounds = zip(times[of], zip(*(times[name] for name in to)))
    return statistics.median(mine / sum(others) for mine, others in rounds)


def peak_memory(
    function: Callable[[], object],
    device: torch.device,
    forget: Callable[[], object] = lambda: None,
) -> int:
    """Most bytes of tensors held at once in two calls of ``function``, beyond those held before.

    Two, since what the first leaves behind is still there in the second. ``forget`` drops what
    calls before these have left.
    """
    function()
    forget()
    synchronize(device)
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        for _ in range(2):
            function()
        return torch.cuda.max_memory_allocated(device) - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        for _ in range(2):
            function()
    # Every allocation of torch's on the CPU; the process's own peak would count all else too.
    events = profile.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    held = peak = 0
    for _, nbytes in changes:
        held += nbytes
        peak = max(peak, held)
    return peak
