"""HCL, the hierarchical context loss of ReviewKD."""

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

POOL_SIDES = (4, 2, 1)
# Of the pools of these sides, and of all where none is left out.
WEIGHTS = (1 / 2, 1 / 4, 1 / 8)
TOTAL = 1 + sum(WEIGHTS)
NORMALIZE = (None, "level", "channel")


def hcl_loss(
    s_feats: Sequence[Tensor],
    t_feats: Sequence[Tensor],
    normalize: str | None = None,
) -> Tensor:
    """Sum over levels of the mean squared difference at full size and at pooled sizes.

    A level's loss is ``(m + sum_k w_k * m_k) / (1 + sum_k w_k)``, with ``m`` the mean squared
    difference of the maps and ``m_k`` that of their average pools of side 4, 2 and 1. The
    weights are 1/2, 1/4, 1/8 in that order; a side that is not smaller than the map's height
    is skipped and does not halve the next weight (only the height is asked, as published).

    Args:
        s_feats: Student maps, each ``[N, C, H, W]`` (or ``[N, C]``, a pooled feature).
        t_feats: Teacher maps of the same shapes; no gradient reaches them.
        normalize: None, as published: the loss grows with the square of the features' scale.
            ``'level'``: each level's loss is divided by the variance of the teacher's map, so
            that a student map of the right mean costs about 1. ``'channel'``: both maps are
            standardised, each channel to mean 0 and variance 1 over batch and positions, as in
            PKD (arXiv 2207.02039): at full size the loss is ``2 * (1 - r)``, r the mean Pearson
            correlation of the channels, whatever the scale of either side.

    Returns:
        Scalar, float32 (float64 for float64 input). 0 for equal or empty maps.

    Raises:
        ValueError: If the numbers of levels or the shapes of a level differ, or for an unknown
            ``normalize``.

    Source: "Distilling Knowledge via Knowledge Review", arXiv 2104.09044, section 3.3.
    """
    _check_normalize(normalize)
    s_feats, t_feats = (
        [x[..., None, None] if x.dim() == 2 else x for x in side] for side in (s_feats, t_feats)
    )
    check_pyramids("HCL", s_feats, t_feats)
    levels = []
    for s, t in zip(s_feats, t_feats):
        s, t = at_least_float32(s), at_least_float32(t.detach())
        if normalize == "channel":
            s, t = _standardised(s), _standardised(t)
        loss = _level_loss(s, t)
        levels.append(loss / _variance(t) if normalize == "level" else loss)
    return torch.stack(levels).sum()


def _check_normalize(normalize: str | None) -> None:
    if normalize not in NORMALIZE:
        raise InvalidInputError(
            f"HCL: expected normalize to be one of {NORMALIZE}, found {normalize!r}"
        )


def _standardised(x: Tensor) -> Tensor:
    """Each channel with mean 0 and variance 1; a constant channel becomes 0, without gradient."""
    if x.numel() == 0:
        return x
    over = (0, 2, 3)
    # The result does not depend on a channel's scale; at scale 1 squares do not overflow.
    largest = x.detach().abs().amax(over, keepdim=True)
    x = x / torch.where(largest > 0, largest, 1)
    x = x - x.mean(over, keepdim=True)
    variance = x.square().mean(over, keepdim=True)
    varies = variance > 1e-10
    return x * torch.where(varies, variance, 1).rsqrt() * varies


def _variance(x: Tensor) -> Tensor:
    """Variance of a map around its channels' means, 1 for a constant or empty one."""
    if x.numel() == 0:
        return x.new_ones(())
    variance = x.var(dim=(0, 2, 3), correction=0).mean()
    return torch.where(variance > 0, variance, 1)


def _level_loss(s: Tensor, t: Tensor) -> Tensor:
    if s.numel() == 0:
        return s.sum()
    height, width = s.shape[2:]
    # Pools of equal bins come from one another.
    nested = height % POOL_SIDES[0] == 0 and width % POOL_SIDES[0] == 0 and height > POOL_SIDES[0]
    if nested:
        return cast(Tensor, _NestedPools.apply(s, t))
    loss, total, weight = F.mse_loss(s, t), 1.0, 1.0
    # Pooling is linear: the difference of the pools is the pool of the difference.
    difference = s - t
    for side in POOL_SIDES:
        if side >= height:
            continue
        weight /= 2
        total += weight
        loss = loss + weight * _pooled(difference, side).square().mean()
    return loss / total


class _NestedPools(torch.autograd.Function):
    """A level's loss where 4 divides height and width and is smaller, its gradient in closed form.

    The gradient is the difference of the maps, and in each bin that of the pools, weighted: it is
    written once. Unlike adaptive pooling's, it is deterministic on a GPU.
    """

    @staticmethod
    def forward(ctx: Any, s: Tensor, t: Tensor) -> Tensor:
        difference = pool = s - t
        pools = []
        for side in POOL_SIDES:
            # Rows first, whose entries lie side by side: several times faster than avg_pool2d.
            rows = pool.unflatten(2, (side, -1)).mean(dim=3)
            pool = rows.unflatten(3, (side, -1)).mean(dim=4)
            pools.append(pool)
        # Not the difference, which would be one more map to keep.
        ctx.save_for_backward(s, t, *pools)
        loss = difference.square_().mean()
        for weight, pool in zip(WEIGHTS, pools):
            loss = loss + weight * pool.square().mean()
        return loss / TOTAL

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        s, t, finest, *pools = ctx.saved_tensors
        difference = s - t
        # Each position has the same share in the pools that it lies in.
        coarse = WEIGHTS[0] * finest
        for weight, pool in zip(WEIGHTS[1:], pools):
            coarse += weight * _repeat(_repeat(pool, 2, finest.shape[2]), 3, finest.shape[3])
        coarse = _repeat(coarse, 3, difference.shape[3]).unsqueeze(3)
        found = difference.unflatten(2, (finest.shape[2], -1)).add_(coarse)
        return found.mul_(2 * grad / (TOTAL * difference.numel())).flatten(2, 3), None


def _repeat(x: Tensor, dim: int, size: int) -> Tensor:
    """Repeat the entries of a dimension one by one, up to ``size``."""
    # Unlike repeat_interleave(), never waits for a GPU, whatever the version of torch.
    times = [-1] * dim + [-1, size // x.shape[dim]] + [-1] * (x.dim() - dim - 1)
    return x.unsqueeze(dim + 1).expand(times).flatten(dim, dim + 1)


def _pooled(x: Tensor, side: int) -> Tensor:
    """Average pool of ``side`` bins a side, which overlap where they do not divide the map."""
    if not torch.are_deterministic_algorithms_enabled():
        return F.adaptive_avg_pool2d(x, side)
    # Its backward pass has no deterministic form on CUDA; the mean of a bin is one of rows and
    # columns.
    for dim in (2, 3):
        size = x.shape[dim]
        bins = [(i * size // side, -(-(i + 1) * size // side)) for i in range(side)]
        x = torch.stack([x.narrow(dim, a, b - a).mean(dim) for a, b in bins], dim)
    return x


class HCLLoss(nn.Module):
    """:func:`hcl_loss` with a weight.

    Args:
        loss_weight: Factor on the returned loss.
        normalize: As in :func:`hcl_loss`; None is the published form.

    Raises:
        ValueError: If ``loss_weight`` is negative, or for an unknown ``normalize``.
    """

    def __init__(self, loss_weight: float = 1.0, normalize: str | None = None) -> None:
        super().__init__()
        if loss_weight < 0:
            raise InvalidInputError(f"HCLLoss needs loss_weight >= 0, got {loss_weight}")
        _check_normalize(normalize)
        self.loss_weight = loss_weight
        self.normalize = normalize

    def forward(self, s_feats: Sequence[Tensor], t_feats: Sequence[Tensor]) -> Tensor:
        """Scalar loss of two pyramids, each a sequence of ``[N, C, H, W]``."""
        return self.loss_weight * hcl_loss(s_feats, t_feats, self.normalize)

    def extra_repr(self) -> str:
        return f"loss_weight={self.loss_weight}, normalize={self.normalize!r}"
