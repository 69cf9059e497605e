"""Let `mmcv.ops` run on torchvision's kernels where mmcv has no compiled ones.

There is no mmcv wheel for current torch, a build from source takes long, and under build isolation
it silently yields a package without its extension: `ModuleNotFoundError: mmcv._ext`. mmcv-lite
never has one. The Python half of `mmcv.ops` is there in both; only the module `mmcv._ext` is
missing, so that is what is supplied here. A compiled one is found first and wins.

An op that neither torchvision nor plain torch provides raises when it is called, not when mmcv is
imported, since `mmcv.ops` imports all of its ops at once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn

from kd_det.compat.mmcv.common import EXTENSION, not_provided


def patch() -> None:
    """Offer an `mmcv._ext`, to be asked last."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())


class _Finder(MetaPathFinder):
    """Finds `mmcv._ext`; stands last in `sys.meta_path`, after the finder of files."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != EXTENSION:
            return None
        return ModuleSpec(fullname, _Loader(), origin=__file__)


class _Loader(Loader):
    """Fills the module with the ops that exist and a `__getattr__` for those that are missing."""

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        from kd_det.compat.mmcv.ops import OPS  # loads torch and torchvision

        vars(module).update(OPS)
        vars(module)["__getattr__"] = _missing_op


def _missing_op(name: str) -> Callable[..., NoReturn]:
    """What `mmcv._ext.<name>` is where nothing provides the op: a function that says so."""
    if name.startswith("_"):  # asked for by the import system and by inspection, never an op
        raise AttributeError(f"module {EXTENSION!r} has no attribute {name!r}")

    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise not_provided(name)

    refuse.__name__ = refuse.__qualname__ = name
    return refuse
