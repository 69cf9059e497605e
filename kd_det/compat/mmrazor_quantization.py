"""Let mmrazor import on torch >= 2, without its quantization.

`mmrazor.structures.quantization` (mmrazor 1.0.0) builds tables at import from names of
`torch.ao.quantization` that torch 2.0 renamed and later removed. `mmrazor.models` and
`mmrazor.engine` import it, so nothing of mmrazor imports, distillation included
(open-mmlab/mmrazor issues 615, 632, 652).

The real sub-package is tried first; only when it fails does a placeholder take its place, and
whoever then uses quantization gets an error that says why it is not there.
"""

from __future__ import annotations

import importlib.machinery
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from types import ModuleType
from typing import Any, NoReturn

from kd_det.errors import MissingPackageError

_TARGET = "mmrazor.structures.quantization"
# What the rest of mmrazor takes from the sub-package by name.
_NAMES = ("BackendConfigs", "QConfigHandler")


def patch() -> None:
    """Watch for the import of the sub-package."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Hands out the real sub-package with a loader that survives its failure."""

    def __init__(self) -> None:
        self.failure: str | None = None

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if self.failure is not None and fullname.startswith(_TARGET + "."):
            raise MissingPackageError(self.failure, name=fullname)
        if fullname != _TARGET:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _TryingLoader(spec.loader, self)
        return spec


class _TryingLoader(Loader):
    """Runs the real module; turns it into a placeholder when that fails."""

    def __init__(self, real: Loader, finder: _Finder) -> None:
        self.real = real
        self.finder = finder

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        try:
            self.real.exec_module(module)
        except Exception as error:  # ImportError, AttributeError, TypeError: torch decides
            self.finder.failure = _explain(error)
            _make_placeholder(module, self.finder.failure)


def _explain(error: Exception) -> str:
    import torch

    return (
        "quantization of mmrazor is not available: its sub-package "
        f"{_TARGET} does not import with torch {torch.__version__} "
        f"({type(error).__name__}: {error}). It needs torch 1.13; everything else of mmrazor works."
    )


def _make_placeholder(module: ModuleType, reason: str) -> None:
    """Empty the half-run `module` and give it names that raise `reason` when used."""
    for name in [name for name in sys.modules if name.startswith(_TARGET + ".")]:
        del sys.modules[name]
    for name in [name for name in vars(module) if not name.startswith("__")]:
        delattr(module, name)
    # A module's own __all__ decides what `from ... import *` copies, as in the real one.
    vars(module)["__all__"] = list(_NAMES)
    for name in _NAMES:
        setattr(module, name, _Unavailable(name, (), {"reason": reason}))


class _Unavailable(type):
    """A class whose every use (call, attribute, item) raises an ImportError."""

    reason: str

    def _refuse(cls) -> NoReturn:
        raise MissingPackageError(f"{_TARGET}.{cls.__name__}: {cls.reason}")

    def __call__(cls, *args: Any, **kwargs: Any) -> NoReturn:
        cls._refuse()

    def __getitem__(cls, key: Any) -> NoReturn:
        cls._refuse()

    def __getattr__(cls, name: str) -> NoReturn:
        if name.startswith("__"):  # what inspect, copy and doctest ask of any object
            raise AttributeError(name)
        cls._refuse()
