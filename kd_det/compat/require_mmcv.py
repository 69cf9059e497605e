"""Say what to install when there is no mmcv at all.

mmdet and mmrazor import mmcv but do not declare it (there are two packages that provide it), so
an installation without one is easy to get and fails deep inside an import.
"""

from __future__ import annotations

import importlib.util


def check() -> None:
    """Raise an ImportError that names the remedies unless some mmcv can be imported."""
    if importlib.util.find_spec("mmcv") is None:
        raise ImportError(
            "kd_det needs mmcv and found none. Install one of:\n"
            '  pip install "kd_det[lite]"                  '
            "mmcv-lite; its ops run on torchvision's kernels, no compiler needed\n"
            '  pip install "mmcv>=2.0.0rc4,<2.2.0"         '
            "mmcv with its own compiled ops, where a wheel fits or a compiler is at hand"
        )
