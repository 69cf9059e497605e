"""HCL, the hierarchical context loss of ReviewKD."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kd_det.losses._dtype import at_least_float32
from kd_det.registry import MODELS

POOL_SIDES = (4, 2, 1)


def hcl_loss(s_feats: Sequence[Tensor], t_feats: Sequence[Tensor]) -> Tensor:
    """Sum over levels of the mean squared difference at full size and at pooled sizes.

    A level's loss is ``(m + sum_k w_k * m_k) / (1 + sum_k w_k)``, with ``m`` the mean squared
    difference of the maps and ``m_k`` that of their average pools of side 4, 2 and 1. The
    weights are 1/2, 1/4, 1/8 in that order; a side that is not smaller than the map's height
    is skipped and does not halve the next weight (only the height is asked, as published).

    Args:
        s_feats: Student maps, each ``[N, C, H, W]`` (or ``[N, C]``, a pooled feature).
        t_feats: Teacher maps of the same shapes; no gradient reaches them.

    Returns:
        Scalar, float32 (float64 for float64 input). 0 for equal or empty maps.

    Raises:
        ValueError: If the numbers of levels or the shapes of a level differ.

    Source: "Distilling Knowledge via Knowledge Review", arXiv 2104.09044, section 3.3.
    """
    if len(s_feats) != len(t_feats) or not s_feats:
        raise ValueError(
            "HCL compares two pyramids of the same number of levels (at least one), got "
            f"{len(s_feats)} student levels and {len(t_feats)} teacher levels"
        )
    levels = []
    for level, (s, t) in enumerate(zip(s_feats, t_feats)):
        s, t = (x[..., None, None] if x.dim() == 2 else x for x in (s, t))
        if s.shape != t.shape or s.dim() != 4:
            raise ValueError(
                f"HCL level {level}: expected two maps [N, C, H, W] of equal shape, got student "
                f"{list(s.shape)} and teacher {list(t.shape)}"
            )
        levels.append(_level_loss(at_least_float32(s) - at_least_float32(t.detach())))
    return torch.stack(levels).sum()


def _level_loss(difference: Tensor) -> Tensor:
    if difference.numel() == 0:
        return difference.sum()
    # Pooling is linear: the difference of the pools is the pool of the difference.
    loss, total, weight = difference.square().mean(), 1.0, 1.0
    for side in POOL_SIDES:
        if side >= difference.shape[2]:
            continue
        weight /= 2
        total += weight
        loss = loss + weight * F.adaptive_avg_pool2d(difference, side).square().mean()
    return loss / total


@MODELS.register_module()
class HCLLoss(nn.Module):
    """:func:`hcl_loss` with a weight.

    Args:
        loss_weight: Factor on the returned loss.

    Raises:
        ValueError: If ``loss_weight`` is negative.
    """

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        if loss_weight < 0:
            raise ValueError(f"HCLLoss needs loss_weight >= 0, got {loss_weight}")
        self.loss_weight = loss_weight

    def forward(self, s_feats: Sequence[Tensor], t_feats: Sequence[Tensor]) -> Tensor:
        """Scalar loss of two pyramids, each a sequence of ``[N, C, H, W]``."""
        return self.loss_weight * hcl_loss(s_feats, t_feats)

    def extra_repr(self) -> str:
        return f"loss_weight={self.loss_weight}"
