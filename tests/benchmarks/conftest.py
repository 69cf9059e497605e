"""Benchmarks are scripts that import each other by their folder."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import ModuleType

import pytest
from benchmark import FOLDER
from small import ROOT


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """``benchmark("compare")`` is the module; the working directory is the repository's root."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.chdir(ROOT)
    return import_module
