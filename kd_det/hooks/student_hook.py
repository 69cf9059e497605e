"""Hooks that reach into a detector, in the training of a distillation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mmengine.hooks import Hook
from wrapt import ObjectProxy

from kd_det.hooks._distillation import unwrap_model
from kd_det.registry import HOOKS


@HOOKS.register_module()
class StudentHook(Hook):
    """Another hook, to which the student is the runner's model.

    mmdet's ``YOLOXModeSwitchHook`` switches the model's head, and its ``SetEpochInfoHook`` tells
    the model the epoch; here that model is the student's:

    .. code-block:: python

        dict(type="kd_det.StudentHook", hook=dict(type="mmdet.YOLOXModeSwitchHook"))

    Not for hooks on checkpoints or all weights, as ``EMAHook``, which work on the whole model.

    Args:
        hook: Config of the hook, or the hook.
    """

    def __init__(self, hook: Hook | dict[str, Any]) -> None:
        self.hook: Hook = hook if isinstance(hook, Hook) else HOOKS.build(hook)
        self.priority = self.hook.priority

    def get_triggered_stages(self) -> list[str]:
        """The stages at which the hook acts."""
        return self.hook.get_triggered_stages()


class StudentRunner(ObjectProxy):
    """A runner whose model is the student."""

    @property
    def model(self) -> Any:
        """The student, or the model of a training without a teacher."""
        model = unwrap_model(self.__wrapped__)
        return getattr(model, "student", model)


def _passed_on(stage: str) -> Callable[..., Any]:
    def call(self: StudentHook, runner: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.hook, stage)(StudentRunner(runner), *args, **kwargs)

    call.__name__ = stage
    return call


for _stage in Hook.stages:
    setattr(StudentHook, _stage, _passed_on(_stage))
