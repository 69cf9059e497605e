"""Where a GPU waits within training steps: the longest gaps between its kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

from _bench.report import Row
from kd_det.timing import synchronize

STEPS = 3


class Span(NamedTuple):
    """From ``start`` to ``end``, in nanoseconds."""

    name: str
    start: int
    end: int


class Gap(NamedTuple):
    """Idle time between two spans of work."""

    ns: int
    after: Span
    before: Span


def gaps(spans: Iterable[Span]) -> list[Gap]:
    """Times in which none of ``spans`` runs, the longest first; spans may overlap."""
    found, last = list[Gap](), None
    for span in sorted(spans, key=lambda span: span.start):
        if last is not None and span.start > last.end:
            found.append(Gap(span.start - last.end, last, span))
        if last is None or span.end > last.end:
            last = span
    return sorted(found, key=lambda gap: -gap.ns)


def measure(case: str, step: Callable[[], None], device: torch.device, number: int) -> list[Row]:
    """The ``number`` longest gaps in :data:`STEPS` steps, and the share of time without work."""
    kernels, calls = _spans(step, device)
    wall = max(k.end for k in kernels) - min(k.start for k in kernels)
    idle = gaps(kernels)
    share = 100 * sum(gap.ns for gap in idle) / wall
    rows = [Row("trace", case, f"idle in {STEPS} steps, of the time", share, "%")]
    for gap in idle[:number]:
        text = (
            f"{gap.after.name[:40]} -> {gap.before.name[:40]}; the host is in {_host(calls, gap)}"
        )
        rows.append(Row("trace", case, text, gap.ns / 1e6))
    return rows


def _host(calls: Iterable[Span], gap: Gap) -> str:
    """The innermost call of the host that spans most of a gap."""
    start, end = gap.after.end, gap.before.start
    inside = [c for c in calls if min(c.end, end) - max(c.start, start) > gap.ns / 2]
    return min(inside, key=lambda c: c.end - c.start).name[:40] if inside else "Python alone"


def _spans(step: Callable[[], None], device: torch.device) -> tuple[list[Span], list[Span]]:
    """Kernels of the device, and calls of the host; on a CPU its calls stand for both."""
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    step()
    synchronize(device)
    with profile(activities=activities) as profiled:
        for _ in range(STEPS):
            step()
        synchronize(device)
    events: Any = profiled.profiler.kineto_results.events()  # type: ignore[union-attr]
    spans: dict[bool, list[Span]] = {True: [], False: []}
    for event in events:
        # A range that code names is shown on the device too, and would cover its gaps.
        named = getattr(event, "is_user_annotation", bool)()
        if event.duration_ns() > 0 and not named:
            span = Span(event.name(), event.start_ns(), event.start_ns() + event.duration_ns())
            spans[event.device_type() != torch.autograd.DeviceType.CPU].append(span)
    calls = spans[False]
    return (spans[True] if on_gpu else calls), calls
