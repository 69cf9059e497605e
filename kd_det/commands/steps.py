"""Run a command once: its result is kept until the command, its config or its inputs change."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from kd_det.errors import UserError
from kd_det.files import write_atomically
from kd_det.version import __version__

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]

MARKER = "step.json"
LOG = "console.log"
# Of what a tool prints, what tells how far it is; all of it is in the step's console.log.
SHOWN = ("Epoch(", "Iter(", "Gathering", " s left", "WARNING", "images in train/")
HIDDEN = ("FileClient", "HardDiskBackend", "Exp name", "pkg_resources")


class StepError(UserError, RuntimeError):
    """A command that failed, which has said why, or one whose folder is not its own."""


@dataclass
class Step:
    """One command whose result lies in ``folder``.

    Args:
        name: How it is called in the output.
        command: Arguments behind ``python``.
        folder: Where its results go; removed when they are outdated.
        config: Config file that the command reads, part of what makes a result valid.
        inputs: Steps whose results it uses.
        resume: Option that makes the command go on where it was.
        results: Files that must be there for the step to count as done.
        digests: Of the content of what the command reads beside its config.
        keep: Whether outdated results are moved aside, not removed, and stay valid in another
            version of kd_det: those of trainings that took long.
    """

    name: str
    command: list[str]
    folder: Path
    config: str | None = None
    inputs: list[Step] = field(default_factory=list)
    resume: str | None = None
    results: list[Path] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    keep: bool = False
    _process: subprocess.Popen | None = field(default=None, init=False, repr=False, compare=False)
    _lock: int | None = field(default=None, init=False, repr=False, compare=False)

    @cached_property
    def key(self) -> str:
        """Digest of all that the result depends on."""
        parts = [] if self.keep else [__version__]
        parts += [*self.command, *self.digests, *(step.key for step in self.inputs)]
        if self.config is not None:
            from mmengine.config import Config

            parts.append(repr(Config.fromfile(self.config).to_dict()))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @property
    def done(self) -> bool:
        """Whether a finished run left its results, and nothing that they depend on changed."""
        state = self._state()
        finished = state.get("key") == self.key and state.get("done", False)
        return finished and all(path.exists() for path in self.results)

    @property
    def begun(self) -> bool:
        """Whether a run was begun with all that the result depends on as it is."""
        return self._state().get("key") == self.key

    @property
    def outdated(self) -> bool:
        """Whether the folder holds results of other settings, which the next run replaces."""
        return bool(self._state()) and not self.begun

    def run(self) -> None:
        """Run the command unless its result is there.

        Raises:
            StepError: If the command fails, which shows the end of its output, if it leaves no
                results, or if it runs already.
        """
        with self._alone():
            self._run()

    def _run(self) -> None:
        command = list(self.command)
        if self.done:
            print(f"\n[{self.name}] done already in {self.folder}", flush=True)
            return
        if self.begun:
            command += [self.resume] if self.resume else []
        elif self.outdated:
            self._clear()
        elif self.folder.exists() and any(self.folder.iterdir()):
            raise StepError(
                f"{self.folder} holds files that this tool did not make; move them away, or "
                "choose another folder with --root or --work-dir"
            )
        self._mark(done=False)
        start = time.monotonic()
        print(f"\n[{self.name}] python {' '.join(command)}", flush=True)
        self._execute(command)
        if lacking := [str(path) for path in self.results if not path.exists()]:
            raise StepError(
                f"step '{self.name}' ended without {', '.join(lacking)}; {self.folder / LOG} says "
                "what it did instead"
            )
        self._mark(done=True)
        print(f"[{self.name}] done in {time.monotonic() - start:.0f} s", flush=True)

    @property
    def commit(self) -> str:
        """The code that the last run was begun with."""
        return self._state().get("commit", "unknown")

    def stop(self) -> None:
        """End the command if it runs, also from another thread."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def _clear(self) -> None:
        """Remove outdated results, or move them aside."""
        text = f"\n[{self.name}] settings changed, {self.folder} is made again"
        if not self.keep:
            print(text, flush=True)
            shutil.rmtree(self.folder)
            return
        names = (self.folder.with_name(f"{self.folder.name}_old{n}") for n in itertools.count(1))
        aside = next(path for path in names if not path.exists())
        print(f"{text}; what was there is now {aside}", flush=True)
        self.folder.rename(aside)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold a lock that the command holds too, in case it goes on where this process is killed.

        Raises:
            StepError: If it is held.
        """
        if fcntl is None:  # Windows
            yield
            return
        path = self.folder.with_name(f".{self.folder.name}.lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StepError(
                    f"step '{self.name}' still runs in {self.folder}, started before; wait until "
                    "it is done, or end that process"
                ) from error
            except OSError:  # file systems without locks
                pass
            self._lock = file.fileno()
            try:
                yield
            finally:
                self._lock = None

    def _state(self) -> dict[str, Any]:
        marker = self.folder / MARKER
        return json.loads(marker.read_text(encoding="utf-8")) if marker.is_file() else {}

    def _mark(self, done: bool) -> None:
        state = {"key": self.key, "done": done, "commit": _commit()}
        write_atomically(self.folder / MARKER, json.dumps(state).encode())

    def _execute(self, command: list[str]) -> None:
        log = self.folder / LOG
        with log.open("a", encoding="utf-8") as file:
            try:
                with _sigterm_held_back():
                    self._process = process = subprocess.Popen(
                        [sys.executable, "-u", *command],
                        stdout=subprocess.PIPE,
                        stderr=subprocess.STDOUT,
                        encoding="utf-8",
                        errors="replace",
                        pass_fds=[] if self._lock is None else [self._lock],
                    )
                assert process.stdout is not None
                with process.stdout as output:
                    for line in output:
                        file.write(line)
                        if any(s in line for s in SHOWN) and not any(h in line for h in HIDDEN):
                            print(f"  {self.name}: {_shortened(line)}", flush=True)
                code = process.wait()
            except BaseException:
                self.stop()
                raise
        if code != 0:
            end = "".join(log.read_text(encoding="utf-8").splitlines(keepends=True)[-15:])
            raise StepError(f"step '{self.name}' failed with exit code {code}:\n{end}({log})")


@contextmanager
def _sigterm_held_back() -> Iterator[None]:
    """Act on SIGTERM afterwards, when the process that is started within is known and ends too."""
    if threading.current_thread() is not threading.main_thread():  # which alone gets signals
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda *_: came.append(1))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        if came:
            os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the steps that run within too, as Ctrl-C does."""

    def end(*_: object) -> None:
        sys.exit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run_steps(steps: Iterable[Step]) -> None:
    """Run steps one after the other; SIGTERM ends the one that runs too."""
    with ended_by_sigterm():
        for step in steps:
            step.run()


def _commit() -> str:
    """The checked out commit, with a mark if files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    return done.stdout.strip() or "unknown"


def _shortened(line: str) -> str:
    """A log line without the entries that only matter in the log file."""
    text = line.rstrip().split(" - INFO - ")[-1]
    # MMEngine pads the counters: 'Epoch(train)  [3][ 25/125]  lr: ...'.
    counters = re.match(r"(?:Epoch|Iter)\(\w+\)\s*(\[[^]]*\])+", text)
    if counters is None:
        return text
    kept = ("lr:", "eta:", "time:", "loss:", "coco/bbox_mAP:", "coco/bbox_mAP_50:", "accuracy/")
    rest = (part.strip() for part in text[counters.end() :].split("  "))
    return "  ".join([counters[0], *(part for part in rest if part.startswith(kept))])
