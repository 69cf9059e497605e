"""Benchmarks are scripts that import each other by their folder."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType

import pytest
from small import ROOT


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """``benchmark("compare")`` is the module; the working directory is the repository's root."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # which they set for the processes that they start
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return import_module


@pytest.fixture
def run(benchmark: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> Callable:
    """``run("compare", *arguments)`` as from the command line, in this process."""

    def main(name: str, *arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", [f"benchmarks/{name}.py", *map(str, arguments)])
        benchmark(name).main()

    return main
