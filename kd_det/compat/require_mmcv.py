"""Say what to install when there is no mmcv at all.

mmdet and mmrazor import mmcv but do not declare it (there are two packages that provide it), so
an installation without one is easy to get and fails deep inside an import.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from kd_det.errors import MissingPackageError

_NEED_IT = ("mmdet", "mmrazor", "mmpretrain")


def patch() -> None:
    """Refuse to import what needs mmcv, with the remedies, unless some mmcv can be imported."""
    if importlib.util.find_spec("mmcv") is None:
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in _NEED_IT and importlib.util.find_spec("mmcv") is None:
            raise MissingPackageError(
                f"{fullname} needs mmcv, and no mmcv is installed. Install one of:\n"
                '  pip install "kd_det[lite]"                  '
                "mmcv-lite; its ops run on torchvision's kernels, no compiler needed\n"
                '  pip install "mmcv>=2.0.0rc4,<2.2.0"         '
                "mmcv with its own compiled ops, where a wheel fits or a compiler is available"
            )
        return None
