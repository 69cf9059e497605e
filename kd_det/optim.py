"""Optimizers of distillation models: the student's own settings, further groups for connectors."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.model import is_model_wrapper
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from torch import nn

from kd_det.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS

STUDENT, TEACHER, DISTILLER = "architecture", "teacher", "distiller"
DEFAULT = "DefaultOptimWrapperConstructor"


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class DistillOptimWrapperConstructor:
    """Give the student the parameter groups that it has when it is trained alone.

    The student's own constructor is called with the student, so that it sees the detector that it
    is made for (layer-wise decay reads the backbone's type) and the names that it knows.
    Other trained modules, such as connectors, become further groups of the same optimizer. The
    teacher is in none.

    Args:
        optim_wrapper_cfg: Config of optimizer and wrapper. ``student_constructor`` in it is the
            type of the student's constructor, MMEngine's default if it is not given.
        paramwise_cfg: Of the student's constructor. Of ``custom_keys``, those that begin with
            ``distiller`` are for the distiller's modules; ``architecture.`` before the student's
            names may be left out.
    """

    def __init__(
        self, optim_wrapper_cfg: dict[str, Any], paramwise_cfg: dict[str, Any] | None = None
    ) -> None:
        self.optim_wrapper_cfg = copy.deepcopy(optim_wrapper_cfg)
        self.student_constructor = self.optim_wrapper_cfg.pop("student_constructor", DEFAULT)
        self.paramwise_cfg = copy.deepcopy(paramwise_cfg or {})

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimizer of a distillation model, or of a model without a teacher."""
        model = getattr(model, "module", model) if is_model_wrapper(model) else model
        student: nn.Module = getattr(model, STUDENT, model)
        wrapper = OPTIM_WRAPPER_CONSTRUCTORS.build(
            dict(
                type=self.student_constructor,
                optim_wrapper_cfg=copy.deepcopy(self.optim_wrapper_cfg),
                paramwise_cfg=settings_of_student(self.paramwise_cfg) or None,
            )
        )(student)
        if student is not model:
            names = {parameter: name for name, parameter in model.named_parameters()}
            for group in self._other_groups(model):
                if "param_names" in wrapper.optimizer.param_groups[0]:  # torch wants all or none
                    group["param_names"] = [names[parameter] for parameter in group["params"]]
                wrapper.optimizer.add_param_group(group)
        return wrapper

    def _other_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Groups of modules that are neither in the student nor in the teacher."""
        settings = _settings_of_distiller(self.paramwise_cfg)
        constructor = DefaultOptimWrapperConstructor(self.optim_wrapper_cfg, settings)
        groups: list[dict[str, Any]] = []
        for name, module in model.named_children():
            trained = any(parameter.requires_grad for parameter in module.parameters())
            if trained and name not in (STUDENT, TEACHER):
                constructor.add_params(groups, module, prefix=name)
        return _merged(groups)


def settings_of_student(paramwise_cfg: dict[str, Any]) -> dict[str, Any]:
    """Settings with the names that the student's parameters have when it is trained alone."""
    keys = {
        key.removeprefix(f"{STUDENT}."): value
        for key, value in paramwise_cfg.get("custom_keys", {}).items()
        if not key.startswith((DISTILLER, TEACHER))
    }
    return _with_keys(paramwise_cfg, keys)


def _settings_of_distiller(paramwise_cfg: dict[str, Any]) -> dict[str, Any]:
    keys = paramwise_cfg.get("custom_keys", {}).items()
    return _with_keys(paramwise_cfg, {k: v for k, v in keys if k.startswith(DISTILLER)})


def _with_keys(paramwise_cfg: dict[str, Any], keys: dict[str, Any]) -> dict[str, Any]:
    settings = {key: value for key, value in paramwise_cfg.items() if key != "custom_keys"}
    return {**settings, "custom_keys": keys} if keys else settings


def _merged(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Merge groups of the same settings."""
    merged: list[dict[str, Any]] = []
    for group in groups:
        settings = {key: value for key, value in group.items() if key != "params"}
        for other in merged:
            if {key: value for key, value in other.items() if key != "params"} == settings:
                other["params"] = [*other["params"], *group["params"]]
                break
        else:
            merged.append(dict(group))
    return merged


@OPTIM_WRAPPERS.register_module()
class Bfloat16OptimWrapper(OptimWrapper):
    """MMEngine's wrapper with a forward pass in bfloat16, on a CPU too, where its own refuses.

    Weights stay float32, and nothing has to be scaled: bfloat16 has the range of float32.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """The context of a forward pass."""
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, dtype=torch.bfloat16):
            yield
