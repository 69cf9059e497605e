"""Run a command once: its result is kept until the command, its config or its inputs change."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from kd_det.errors import UserError
from kd_det.files import write_atomically
from kd_det.version import __version__

MARKER = "step.json"
# Of what a tool prints, what tells how far it is; all of it is in the step's console.log.
SHOWN = ("Epoch(", "Gathering", "WARNING", "images in train/")
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
    """

    name: str
    command: list[str]
    folder: Path
    config: str | None = None
    inputs: list[Step] = field(default_factory=list)
    resume: str | None = None
    results: list[Path] = field(default_factory=list)
    _process: subprocess.Popen | None = field(default=None, init=False, repr=False, compare=False)

    @cached_property
    def key(self) -> str:
        """Digest of all that the result depends on."""
        parts = [__version__, *self.command, *(step.key for step in self.inputs)]
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

    def run(self) -> None:
        """Run the command unless its result is there.

        Raises:
            StepError: If the command fails; shows the end of its output.
        """
        state = self._state()
        command = list(self.command)
        if self.done:
            print(f"\n[{self.name}] done already in {self.folder}", flush=True)
            return
        if state.get("key") == self.key:
            command += [self.resume] if self.resume else []
        elif state:
            print(f"\n[{self.name}] settings changed, {self.folder} is made anew", flush=True)
            shutil.rmtree(self.folder)
        elif self.folder.exists() and any(self.folder.iterdir()):
            raise StepError(
                f"{self.folder} holds files that this tool did not make; move them away, or "
                "choose another folder with --root"
            )
        self._mark(done=False)
        start = time.monotonic()
        print(f"\n[{self.name}] python {' '.join(command)}", flush=True)
        self._execute(command)
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

    def _state(self) -> dict[str, Any]:
        marker = self.folder / MARKER
        return json.loads(marker.read_text(encoding="utf-8")) if marker.is_file() else {}

    def _mark(self, done: bool) -> None:
        state = {"key": self.key, "done": done, "commit": _commit()}
        write_atomically(self.folder / MARKER, json.dumps(state).encode())

    def _execute(self, command: list[str]) -> None:
        log = self.folder / "console.log"
        with log.open("a", encoding="utf-8") as file:
            process = subprocess.Popen(
                [sys.executable, "-u", *command],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
            )
            assert process.stdout is not None
            self._process = process
            try:
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


def _commit() -> str:
    """The checked out commit, with a mark if files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    return done.stdout.strip() or "unknown"


def _shortened(line: str) -> str:
    """A log line without the entries that only matter in the log file."""
    text = line.rstrip().split(" - INFO - ")[-1]
    # MMEngine pads the counters: 'Epoch(train)  [3][ 25/125]  lr: ...'.
    counters = re.match(r"Epoch\(\w+\)\s*(\[[^]]*\])+", text)
    if counters is None:
        return text
    kept = ("lr:", "eta:", "time:", "loss:", "coco/bbox_mAP:", "coco/bbox_mAP_50:", "accuracy/")
    rest = (part.strip() for part in text[counters.end() :].split("  "))
    return "  ".join([counters[0], *(part for part in rest if part.startswith(kept))])
