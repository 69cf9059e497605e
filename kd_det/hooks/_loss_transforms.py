"""Transforms of the dict of losses that a model returns, in an order that is stated."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple

import torch
from torch import nn

Transform = Callable[[dict[str, Any]], dict[str, Any]]
ATTRIBUTE = "kd_det_loss_transforms"


class Stage(IntEnum):
    """When a transform acts, whichever hook was set up first."""

    BALANCE = 0
    WEIGHT = 1  # on top of a balance, which would undo it
    CHECK = 2  # of what the optimizer is given


class Handle(NamedTuple):
    """Removes a transform, and with the last one the hook on the model."""

    model: nn.Module
    entry: tuple[Stage, Transform]

    def remove(self) -> None:
        """Remove the transform; a second call does nothing."""
        transforms: _LossTransforms | None = getattr(self.model, ATTRIBUTE, None)
        if transforms is None or self.entry not in transforms.entries:
            return
        transforms.entries.remove(self.entry)
        if not transforms.entries:
            transforms.handle.remove()
            delattr(self.model, ATTRIBUTE)


def transform_losses(model: nn.Module, stage: Stage, transform: Transform) -> Handle:
    """Let ``transform`` take the losses of each training step, and return those to go on with.

    Args:
        model: Any model of MMEngine's whose forward pass returns a dict of losses: an algorithm
            of MMRazor's or a plain detector, out of its wrapper.
        stage: When it acts; transforms of one stage act in the order in which they came.
        transform: Gets a dict of its own.
    """
    if not hasattr(model, ATTRIBUTE):
        setattr(model, ATTRIBUTE, _LossTransforms(model))
    entries = getattr(model, ATTRIBUTE).entries
    entries.append((stage, transform))
    entries.sort(key=lambda each: each[0])
    return Handle(model, (stage, transform))


class _LossTransforms:
    """The transforms of one model, in order, behind the one hook on it."""

    def __init__(self, model: nn.Module) -> None:
        self.entries: list[tuple[Stage, Transform]] = []
        self.handle = model.register_forward_hook(self._apply)

    def _apply(self, model: nn.Module, inputs: Any, losses: Any) -> Any:
        if not torch.is_grad_enabled() or not isinstance(losses, dict):  # predictions
            return losses
        losses = dict(losses)
        for _, transform in self.entries:
            losses = transform(losses)
        return losses
