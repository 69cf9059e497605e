"""A progress bar with rate and ETA on terminals, a log line now and then elsewhere."""

from __future__ import annotations

import contextlib
import io
import sys
import time
from collections.abc import Iterator
from typing import Any

from mmengine.dist import is_main_process
from mmengine.logging import MMLogger, print_log
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

SECONDS_BETWEEN_LINES = 15


def progress(batches: Any, what: str) -> Iterator[Any]:
    """Iterate over ``batches`` (with a length) while showing how far it is."""
    if not is_main_process():
        yield from batches
    elif sys.stdout.isatty():
        # A run's name may hold what rich would take for markup.
        name = TextColumn("{task.description}", markup=False)
        count = MofNCompleteColumn()
        with Progress(name, BarColumn(), count, _Rate(), TimeRemainingColumn()) as bar:
            yield from bar.track(batches, total=len(batches), description=what)
    else:
        yield from _logged(batches, what, len(batches))


def quiet() -> contextlib.redirect_stdout:
    """Suppress what is printed, as by pycocotools for each of its steps; what is logged is not."""
    # A logger that was made within would write to nowhere for good.
    MMLogger.get_current_instance()
    return contextlib.redirect_stdout(io.StringIO())


class _Rate(ProgressColumn):
    """Steps in a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.3g}/s" if speed else "", style="progress.data.speed")


def _logged(batches: Any, what: str, total: int) -> Iterator[Any]:
    start = last = time.monotonic()
    for done, batch in enumerate(batches):
        now = time.monotonic()
        if done and now - last > SECONDS_BETWEEN_LINES:
            rate = done / (now - start)
            left = f"{rate:.3g}/s, {(total - done) / rate:.0f} s left"
            print_log(f"{what}: {done}/{total}, {left}", logger="current")
            last = now
        yield batch
    print_log(f"{what}: {total}/{total} in {time.monotonic() - start:.1f} s", logger="current")
