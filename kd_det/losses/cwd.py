"""CWD, channel-wise distillation, with a temperature that follows the teacher's scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from kd_det.errors import InvalidInputError
from kd_det.losses._dtype import at_least_float32
from kd_det.losses._pyramids import check_pyramids

# Below this part of the largest value, what is left of a pyramid without its channels' means is
# rounding.
FLAT = 1e-5


def cwd_loss(
    s_feats: Sequence[Tensor],
    t_feats: Sequence[Tensor],
    tau: float = 1.0,
    relative: bool = False,
) -> Tensor:
    """Sum over levels of ``tau^2 KL(softmax(t / tau) || softmax(s / tau))``.

    The softmax runs over the positions of a channel, the mean over channels and samples: what
    counts is where a channel responds. The same error weighs more there than elsewhere, and a
    constant added to a channel changes nothing.

    How sharp the softmax is depends on the scale of the features, which differs from teacher to
    teacher. With ``relative``, ``tau`` is in units of the standard deviation of the teacher's
    pyramid (of each sample, around the means of its channels), and there is no factor ``tau^2``:
    scaling both pyramids together changes nothing. The levels keep the teacher's relative scales.

    Args:
        s_feats: Student maps, each ``[N, C, H, W]``.
        t_feats: Teacher maps of the same shapes; no gradient reaches them.
        tau: Temperature.
        relative: Whether ``tau`` is relative to the scale of the teacher's pyramid.

    Returns:
        Scalar, float32 (float64 for float64 input). 0 for equal or empty maps.

    Raises:
        ValueError: If the numbers of levels or the shapes of a level differ.

    Source: "Channel-wise Knowledge Distillation for Dense Prediction", arXiv 2011.13256.
    """
    check_pyramids("CWD", s_feats, t_feats)
    s_feats = [at_least_float32(s) for s in s_feats]
    t_feats = [at_least_float32(t.detach()) for t in t_feats]
    scale = tau * _deviation(t_feats) if relative else tau
    levels = []
    for s, t in zip(s_feats, t_feats):
        if t.numel() == 0:
            levels.append(s.sum())
            continue
        mean = cast(Tensor, _ChannelKL.apply(s.flatten(2), t.flatten(2), scale)).mean()
        levels.append(mean if relative else tau**2 * mean)
    return torch.stack(levels).sum()


class _ChannelKL(torch.autograd.Function):
    """KL divergence of each channel ``[N, C]``, with its gradient in closed form.

    With ``p = softmax(t / scale)`` and ``q = softmax(s / scale)`` over the positions it is
    ``sum p (log p - log q)``, and its gradient in ``s`` is ``(q - p) / scale``.
    """

    @staticmethod
    def forward(ctx: Any, s: Tensor, t: Tensor, scale: Tensor | float) -> Tensor:
        log_q, log_p = _log_softmax(s, scale), _log_softmax(t, scale)
        p = log_p.exp()
        divergence = log_p.sub_(log_q).mul_(p).sum(dim=2)
        ctx.save_for_backward(log_q.exp_().sub_(p))
        ctx.scale = scale
        return divergence

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (difference,) = ctx.saved_tensors
        return difference * (grad.unsqueeze(2) / ctx.scale), None, None


def _log_softmax(x: Tensor, scale: Tensor | float) -> Tensor:
    """Over the positions ``[N, C, L]`` of ``x / scale``; finite, for the product with 0."""
    if isinstance(scale, float) and scale == 1:
        return F.log_softmax(x, dim=2).clamp_(min=-1e30)
    # Shifting a channel changes nothing, and keeps what is divided by a small scale finite.
    return F.log_softmax((x - x.amax(dim=2, keepdim=True)).div_(scale).clamp_(min=-1e30), dim=2)


def _deviation(pyramid: Sequence[Tensor]) -> Tensor:
    """Standard deviation of each sample around its channels' means ``[N, 1, 1]``.

    1 for a pyramid that is flat but for rounding.
    """
    levels = [t.flatten(2) for t in pyramid if t.numel()]
    if not levels:
        return pyramid[0].new_ones(len(pyramid[0]), 1, 1)
    least, most, mean = (
        torch.cat([over(t, dim=2) for t in levels], dim=1)
        for over in (torch.amin, torch.amax, torch.mean)
    )
    height = torch.maximum(most, -least).amax(dim=1).view(-1, 1, 1)
    largest = torch.maximum(most - mean, mean - least).amax(dim=1).view(-1, 1, 1)
    flat = largest <= FLAT * height
    largest = torch.where(flat, 1, largest)
    squares = [
        (t - t.mean(dim=2, keepdim=True)).div_(largest).square_().sum(dim=(1, 2)) for t in levels
    ]
    number = sum(t[0].numel() for t in levels)
    deviation = largest * (torch.stack(squares).sum(dim=0) / number).sqrt().view(-1, 1, 1)
    return torch.where(flat, 1, deviation)


class CWDLoss(nn.Module):
    """:func:`cwd_loss` with a weight.

    MMRazor's ``ChannelWiseDivergence`` is the same for one level and ``relative=False``.

    Args:
        loss_weight: Factor on the returned loss.
        tau: As in :func:`cwd_loss`.
        relative: As in :func:`cwd_loss`.

    Raises:
        ValueError: If ``loss_weight`` is negative or ``tau`` is not positive.
    """

    def __init__(self, loss_weight: float = 1.0, tau: float = 1.0, relative: bool = False) -> None:
        super().__init__()
        if loss_weight < 0 or not tau > 0:
            raise InvalidInputError(
                f"CWDLoss needs loss_weight >= 0 and tau > 0, got loss_weight={loss_weight}, "
                f"tau={tau}"
            )
        self.loss_weight = loss_weight
        self.tau = tau
        self.relative = relative

    def forward(self, s_feats: Sequence[Tensor], t_feats: Sequence[Tensor]) -> Tensor:
        """Scalar loss of two pyramids, each a sequence of ``[N, C, H, W]``."""
        return self.loss_weight * cwd_loss(s_feats, t_feats, self.tau, self.relative)

    def extra_repr(self) -> str:
        return f"loss_weight={self.loss_weight}, tau={self.tau}, relative={self.relative}"
