"""Helpers to run the benchmarks, as modules or as a user does."""

from __future__ import annotations

import os
import subprocess
import sys

from small import ROOT

FOLDER = ROOT / "benchmarks"


def run_benchmark(name: str, *arguments: object) -> subprocess.CompletedProcess:
    """``python benchmarks/<name>.py`` in a process of its own."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, str(FOLDER / f"{name}.py"), *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        encoding="utf-8",
        timeout=240,
        check=False,
    )
