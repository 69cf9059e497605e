"""Progress never changes or loses what is iterated over, and says how fast it is."""

from __future__ import annotations

import io
import re
import time

import pytest

from kd_det import progress


@pytest.mark.parametrize("pause", [0, 60])
def test_every_batch_comes_through_once(monkeypatch, pause):
    """Also where a line is due before the first batch is done."""
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", pause)
    clock = iter(range(1, 100))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    assert list(progress._logged([3, 1, 2], "Counting", 3)) == [3, 1, 2]


def test_lines_tell_rate_and_time_left(monkeypatch):
    lines: list[str] = []
    monkeypatch.setattr(progress, "print_log", lambda text, logger: lines.append(text))
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 15)
    clock = iter([0.0, 0.0, 20.0, 30.0, 30.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    list(progress._logged("abc", "Counting", 3))
    assert lines == ["Counting: 1/3, 0.05/s, 40 s left", "Counting: 3/3 in 30.0 s"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar_with_the_name_as_it_is(monkeypatch):
    """Names of runs are names of folders: brackets and braces are none of rich's markup."""
    terminal = Terminal()
    monkeypatch.setattr(progress.sys, "stdout", terminal)
    name = "Evaluating [red]a{b}"
    for _ in progress.progress("abc", name):
        time.sleep(0.25)  # rich measures the rate every tenth of a second
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())
    assert name in shown and "3/3" in shown and "/s" in shown


def test_what_is_logged_after_a_quiet_part_is_seen(capsys):
    """Also where MMEngine makes its logger, which keeps its stream, within that part."""
    with progress.quiet():
        print("printed within")
        progress.print_log("logged within", logger="current")
    list(progress.progress("abc", "Counting"))
    out = capsys.readouterr().out
    assert "Counting: 3/3" in out and "printed within" not in out
