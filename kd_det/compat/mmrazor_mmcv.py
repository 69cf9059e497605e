"""Let mmrazor be imported beside an mmcv newer than the newest that it knew.

mmrazor 1.0.0 asserts at import that mmcv is at most 2.1.0. Users have mmcv 2.2 where no older one
is built for their torch, and onedl-mmcv counts on from there; what mmrazor uses is the same there.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def patch() -> None:
    """Watch for the import of mmrazor."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Hands out mmrazor as the other finders do, with a loader that tries again."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "mmrazor":
            return None
        for finder in [finder for finder in sys.meta_path if finder is not self]:
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                run = functools.partial(_run, spec.loader.exec_module)  # type: ignore[union-attr]
                setattr(spec.loader, "exec_module", run)  # noqa: B010, mypy: a method
                return spec
        return None


def _run(run: Callable[[Any], None], mmrazor: Any) -> None:
    """Where mmrazor refuses a newer mmcv 2.x, give it the newest version that it allows."""
    try:
        run(mmrazor)
    except AssertionError:
        import mmcv
        from mmengine.utils import digit_version

        version, newest = mmcv.__version__, getattr(mmrazor, "mmcv_maximum_version", "3")
        if not version.startswith("2.") or digit_version(version) <= digit_version(newest):
            raise
        mmcv.__version__ = newest
        try:
            run(mmrazor)
        finally:
            mmcv.__version__ = version
