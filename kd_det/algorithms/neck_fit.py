"""An FPN that starts as near to the teacher's as linear maps of its own backbone come."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.necks import FPN
from mmengine.dist import all_reduce, broadcast
from torch import Tensor, nn

from kd_det.algorithms.wiring import WiringError
from kd_det.losses._dtype import sum_dtype

LATERAL = "lateral_convs."
# Added to the diagonal of the normal equations, in units of its mean.
RIDGE = 1e-4


def require_alike(student: nn.Module, teacher: nn.Module) -> None:
    """Require two FPNs that differ in the channels that they take from their backbones alone.

    Raises:
        kd_det.algorithms.WiringError: If they do not; says how they differ.
    """
    own, other = _fpn(student, "student"), _fpn(teacher, "teacher")
    if type(own) is not type(other):
        raise WiringError(
            f"the student's neck is a {type(own).__name__}, the teacher's a {type(other).__name__}"
        )
    for name in ("start_level", "backbone_end_level", "num_outs", "out_channels"):
        if getattr(own, name) != getattr(other, name):
            raise WiringError(
                f"the student's FPN has {name} {getattr(own, name)}, the teacher's "
                f"{getattr(other, name)}"
            )
    shapes, others = _shapes_behind(own), _shapes_behind(other)
    for name in sorted(shapes.keys() | others.keys()):
        if shapes.get(name) != others.get(name):
            raise WiringError(
                f"neck.{name} is {shapes.get(name)} in the student and {others.get(name)} in the "
                "teacher"
            )


def _fpn(detector: nn.Module, who: str) -> Any:
    neck: Any = getattr(detector, "neck", None)
    if not isinstance(neck, FPN):
        raise WiringError(f"the {who}'s neck is {type(neck).__name__}, not mmdet's FPN")
    for layer in neck.lateral_convs:
        if layer.with_norm or layer.with_activation:
            raise WiringError(f"the {who}'s lateral convolutions have a normalisation")
    return neck


def _shapes_behind(neck: nn.Module) -> dict[str, list[int]]:
    state: dict[str, Tensor] = neck.state_dict()
    return {
        name: list(value.shape) for name, value in state.items() if not name.startswith(LATERAL)
    }


class NeckFit:
    """Least squares of the student's lateral convolutions to the teacher's outputs.

    For level ``i``, with the student's map ``x`` and the teacher's ``t`` of its backbone, the
    weights ``W``, ``b`` of least ``|W x + b - (W_t t + b_t)|^2`` over all positions of the images,
    by their normal equations, summed in float64. Where the other layers of the neck and the heads
    are the teacher's, the student is a detector before its first step.

    Args:
        student: A detector with an FPN, whose backbone has its start.
        teacher: Another, whose FPN is alike (:func:`require_alike`).

    Raises:
        kd_det.algorithms.WiringError: If it is not.
    """

    def __init__(self, student: Any, teacher: Any) -> None:
        require_alike(student, teacher)
        self.student = student
        self.teacher = teacher
        self._sums = [_Sums(layer.conv) for layer in student.neck.lateral_convs]

    @torch.no_grad()
    def update(self, images: Tensor, teacher_images: Tensor) -> None:
        """Add a batch ``[N, 3, H, W]``, as each side takes it."""
        first = self.student.neck.start_level
        own, other = self.student.backbone(images), self.teacher.backbone(teacher_images)
        wanted = zip(self.teacher.neck.lateral_convs, other[first:])
        for sums, x, (layer, t) in zip(self._sums, own[first:], wanted):
            sums.add(x, layer(t))

    def all_reduce(self) -> None:
        """Sum over all ranks."""
        for sums in self._sums:
            all_reduce(sums.products)

    @torch.no_grad()
    def solve(self) -> list[float]:
        """Set the student's layers; returns the explained share of the variance of each level."""
        shares = []
        for sums, layer in zip(self._sums, self.student.neck.lateral_convs):
            shares.append(sums.solve(layer.conv))
            for parameter in layer.conv.parameters():
                broadcast(parameter.data)  # solved by other devices, digits differ
        return shares


class _Sums:
    """Products of ``[x, 1, y]`` with itself, of a 1x1 convolution's input and wanted output."""

    def __init__(self, conv: nn.Conv2d) -> None:
        self.inputs = conv.in_channels
        size = conv.in_channels + 1 + conv.out_channels
        self.products = conv.weight.new_zeros(size, size, dtype=sum_dtype(conv.weight))

    def add(self, x: Tensor, y: Tensor) -> None:
        if x.shape[2:] != y.shape[2:]:
            raise WiringError(
                f"the student's backbone has a map of {list(x.shape[2:])} where the teacher's has "
                f"one of {list(y.shape[2:])}: the FPNs take other strides"
            )
        ones = x.new_ones(1, *x.shape[2:])
        for own, wanted in zip(x, y):  # image by image, for less memory
            parts = [part.flatten(1).to(self.products.dtype) for part in (own, ones, wanted)]
            rows = torch.cat(parts)
            self.products += rows @ rows.T

    def solve(self, conv: nn.Conv2d) -> float:
        split = self.inputs + 1
        inner, outer = self.products[:split, :split], self.products[:split, split:]
        ridge = RIDGE * inner.diagonal().mean() * torch.eye(split).to(inner)
        weights = torch.linalg.solve(inner + ridge, outer)
        conv.weight.copy_(weights[:-1].T[:, :, None, None])
        assert conv.bias is not None  # there is no normalisation
        conv.bias.copy_(weights[-1])
        squares = self.products.diagonal()[split:]
        left = squares - 2 * (weights * outer).sum(0) + (weights * (inner @ weights)).sum(0)
        total = squares - outer[-1].square() / inner[-1, -1]
        return float(1 - left.sum() / total.sum())
