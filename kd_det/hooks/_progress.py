"""A progress bar with rate and ETA on terminals, a log line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

from mmengine.dist import is_main_process
from mmengine.logging import print_log
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 15


def progress(batches: Any, what: str) -> Iterator[Any]:
    """Iterate over ``batches`` (with a length) while showing how far it is."""
    if not is_main_process():
        yield from batches
    elif sys.stdout.isatty():
        columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns) as bar:
            yield from bar.track(batches, total=len(batches))
    else:
        yield from _logged(batches, what, len(batches))


def _logged(batches: Any, what: str, total: int) -> Iterator[Any]:
    start = last = time.monotonic()
    for done, batch in enumerate(batches):
        now = time.monotonic()
        if done and now - last > SECONDS_BETWEEN_LINES:
            left = (now - start) / done * (total - done)
            print_log(f"{what}: {done}/{total}, {left:.0f} s left", logger="current")
            last = now
        yield batch
    print_log(f"{what}: {total}/{total} in {time.monotonic() - start:.1f} s", logger="current")
