"""Knowledge distillation for MMDetection, with MMRazor and MMEngine.

Importing it loads nothing else and patches nothing by itself. Once MMEngine or a package above it
is imported too, what is broken there is patched (:mod:`kd_det.compat`).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kd_det import compat
from kd_det.version import __version__

if TYPE_CHECKING:
    from kd_det.algorithms import FixedTeacherDistill, RoITeacherDistill, TeacherDistill
    from kd_det.hooks import (
        ClassCenterHook,
        EmbeddingMonitorHook,
        LossBalanceHook,
        LossWeightHook,
        NeckFitHook,
        StudentExportHook,
        TeacherAccuracyHook,
    )
    from kd_det.pairing.compose import distill_config

compat.activate_with_stack()

__all__ = [
    "ClassCenterHook",
    "EmbeddingMonitorHook",
    "FixedTeacherDistill",
    "LossBalanceHook",
    "LossWeightHook",
    "NeckFitHook",
    "RoITeacherDistill",
    "StudentExportHook",
    "TeacherAccuracyHook",
    "TeacherDistill",
    "__version__",
    "distill_config",
]

_LAZY = {
    "FixedTeacherDistill": "kd_det.algorithms",
    "RoITeacherDistill": "kd_det.algorithms",
    "TeacherDistill": "kd_det.algorithms",
    "ClassCenterHook": "kd_det.hooks",
    "EmbeddingMonitorHook": "kd_det.hooks",
    "LossBalanceHook": "kd_det.hooks",
    "LossWeightHook": "kd_det.hooks",
    "NeckFitHook": "kd_det.hooks",
    "StudentExportHook": "kd_det.hooks",
    "TeacherAccuracyHook": "kd_det.hooks",
    "distill_config": "kd_det.pairing.compose",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'kd_det' has no attribute '{name}'")
    return getattr(import_module(_LAZY[name]), name)
