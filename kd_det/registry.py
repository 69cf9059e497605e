"""Registries of kd_det: children of MMEngine's roots, found through ``type='kd_det.<Name>'``.

MMEngine imports this module by itself when a config names the scope ``kd_det``, and the
``locations`` when it looks a name up; a config needs no ``custom_imports``. Losses and connectors,
which work without MMEngine, are registered by :mod:`kd_det.registered`.
"""

from __future__ import annotations

from typing import Any

from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import TASK_UTILS as MMENGINE_TASK_UTILS
from mmengine.registry import Registry

MODELS = Registry(
    "model",
    parent=MMENGINE_MODELS,
    scope="kd_det",
    locations=[
        "kd_det.registered",
        "kd_det.algorithms",
        "kd_det.backbones",
    ],
)
HOOKS = Registry("hook", parent=MMENGINE_HOOKS, scope="kd_det", locations=["kd_det.hooks"])
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    "optimizer wrapper constructor",
    parent=MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS,
    scope="kd_det",
    locations=["kd_det.optim"],
)
OPTIM_WRAPPERS = Registry(
    "optim_wrapper", parent=MMENGINE_OPTIM_WRAPPERS, scope="kd_det", locations=["kd_det.optim"]
)
TASK_UTILS = Registry(
    "task util",
    parent=MMENGINE_TASK_UTILS,
    scope="kd_det",
    locations=["kd_det.recorders", "kd_det.algorithms"],
)
DATASETS = Registry(
    "dataset", parent=MMENGINE_DATASETS, scope="kd_det", locations=["kd_det.datasets"]
)


def type_name(cfg: Any) -> str:
    """Name of the class that a part of a config is for, without scope and module.

    ``type`` may be a name, a path as ``'mmengine.optim.LinearLR'``, as which configs in the new
    style are read, or the class itself.

    Args:
        cfg: A dict with a ``type``, or the type.
    """
    kind = cfg.get("type") if isinstance(cfg, dict) else cfg
    name = getattr(kind, "__name__", None) or str(kind)
    return name.replace("::", ".").rpartition(".")[2]


def as_list(value: Any) -> list[Any]:
    """The items of a config's entry that may be absent, one item, or several."""
    if isinstance(value, (list, tuple)):
        return list(value)
    return [] if value is None else [value]
