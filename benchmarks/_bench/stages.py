"""Stages that run one after the other, each in a process of its own and within its time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

from kd_det.files import write_atomically

Thing = TypeVar("Thing")


@dataclass(frozen=True)
class Stage:
    """One process.

    Args:
        name: Of the stage.
        seconds: That it is given at most.
        command: Makes its command line from the seconds that it really has.
    """

    name: str
    seconds: float
    command: Callable[[float], Sequence[str]] = field(repr=False)


@dataclass(frozen=True)
class Outcome:
    """How a stage ended: ``done`` or why not, and after how long."""

    name: str
    state: str
    seconds: float


# Less is not worth starting Python and mmdet for.
LEAST = 10.0


def run_all(
    stages: Sequence[Stage],
    seconds: float,
    log: Path,
    environment: Mapping[str, str],
    after_each: Callable[[list[Outcome]], None],
) -> list[Outcome]:
    """Run all stages within ``seconds`` altogether; what one leaves over the next may use.

    Args:
        stages: In their order; one that fails does not keep the others from running.
        seconds: For all of them.
        log: File that their output is added to.
        environment: Of the processes.
        after_each: Is called with all outcomes so far.
    """
    end, outcomes = time.monotonic() + seconds, list[Outcome]()
    for stage in stages:
        left = min(stage.seconds, end - time.monotonic())
        if left < min(LEAST, stage.seconds):
            outcome = Outcome(stage.name, "no time was left", 0.0)
        else:
            print(f"{stage.name}, at most {left:.0f} s ...", flush=True)
            start = time.monotonic()
            state = _run(stage.command(left), left, log, environment)
            outcome = Outcome(stage.name, state, round(time.monotonic() - start, 1))
        print(f"{stage.name}: {outcome.state}, {outcome.seconds} s", flush=True)
        outcomes.append(outcome)
        after_each(outcomes)
    return outcomes


def _run(command: Sequence[str], seconds: float, log: Path, env: Mapping[str, str]) -> str:
    with open(log, "ab") as output:
        output.write(f"\n$ {' '.join(command)}\n".encode())
        output.flush()
        # A session of its own, so that what it started ends with it.
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=dict(env), start_new_session=True
        )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            return f"stopped after {seconds:.0f} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return "done" if code == 0 else f"failed with exit code {code}"


def write_outcomes(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write them as JSON."""
    write_atomically(path, json.dumps([asdict(x) for x in outcomes], indent=1).encode() + b"\n")


def in_time(
    things: Iterable[Thing],
    seconds: float,
    left_out: list[Thing],
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Thing]:
    """Those for which time is left, if each takes as long as the longest before it.

    Args:
        things: What takes time.
        seconds: For all of them.
        left_out: Gets the others.
        clock: Tells seconds.
    """
    start, longest = clock(), 0.0
    for thing in things:
        began = clock()
        if began - start + longest > seconds:
            left_out.append(thing)
            continue
        yield thing
        longest = max(longest, clock() - began)
