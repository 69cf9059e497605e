"""ND loss of KD++: norm and direction of an embedding against the teacher's class mean."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kd_det.losses._dtype import at_least_float32, sum_dtype
from kd_det.losses.class_means import ClassMeanLoss, check_shapes, directions

TITLE = "ND loss"


def nd_loss(s_emb: Tensor, t_emb: Tensor, centers: Tensor, labels: Tensor) -> Tensor:
    """Per-sample ND loss, ``1 - <s, e_y> / max(|s|, |t|)`` with ``e_y = c_y / |c_y|``.

    While the student's norm is the smaller one, growing along ``e_y`` lowers the loss; once it
    is the larger one, the loss is ``1 - cosine(s, c_y)``. At equal norms the student's norm
    counts as the larger one, as in the published code.

    The loss does not change when ``s_emb`` and ``t_emb`` are scaled together. Norms and products
    are summed in float64, where the device has it, so that they neither overflow nor vanish. A pair
    of zero rows, or a zero center, costs 1.

    Args:
        s_emb: Student embeddings ``[N, D]``.
        t_emb: Teacher embeddings ``[N, D]`` of the same samples; no gradient reaches them.
        centers: Class means of the teacher's embeddings ``[C, D]``; no gradient reaches them.
        labels: Class of each sample, int64 ``[N]``, values in ``[0, C)``; or the shares of all
            classes in each sample, float ``[N, C]``, whose means are then mixed likewise.

    Returns:
        Loss of each sample ``[N]``, float32 (float64 for float64 input), in ``[0, 2]``.

    Raises:
        ValueError: If the shapes do not fit each other.

    Source: "Improving Knowledge Distillation via Regularizing Feature Norm and Direction",
    arXiv 2305.17007, equation 8.
    """
    check_shapes(TITLE, s_emb, centers, labels, t_emb)
    s, t = at_least_float32(s_emb), at_least_float32(t_emb.detach())
    direction = directions(at_least_float32(centers.detach()), labels)
    return norm_and_direction(s, t, direction.to(s.dtype))


def norm_and_direction(s: Tensor, t: Tensor, direction: Tensor) -> Tensor:
    """``1 - <s, e> / max(|s|, |t|)`` of each row, towards any unit directions ``e`` ``[N, D]``."""
    loss: Tensor = _NormAndDirection.apply(s, t, direction)
    return loss


class _NormAndDirection(torch.autograd.Function):
    """The loss of each row, with its gradient in closed form.

    With ``n = max(|s|, |t|)`` and ``c = <s, e> / n`` the loss is ``1 - c``. Its gradient in s is
    ``(c s / n - e) / n`` where ``n = |s|``, else ``-e / n``.
    """

    @staticmethod
    def forward(ctx: Any, s: Tensor, t: Tensor, direction: Tensor) -> Tensor:
        wide = sum_dtype(s)
        s_norm, t_norm = (torch.linalg.vector_norm(x, dim=1, dtype=wide) for x in (s, t))
        norm = torch.where(s_norm >= t_norm, s_norm, t_norm)
        norm = torch.where(norm > 0, norm, 1)
        cosine = (s * direction).sum(dim=1, dtype=wide) / norm
        ctx.save_for_backward(s, direction, norm, torch.where(s_norm >= t_norm, cosine, 0))
        return (1 - cosine).to(s.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        s, direction, norm, cosine = ctx.saved_tensors
        norm, cosine = norm.to(s.dtype).unsqueeze(1), cosine.to(s.dtype).unsqueeze(1)
        # In this order, since cosine / norm^2 may be too large for float32.
        unit = s / norm
        return unit.mul_(cosine).sub_(direction).mul_(grad.unsqueeze(1)).div_(norm), None, None


class NDLoss(ClassMeanLoss):
    """Mean of :func:`nd_loss` over the samples whose class has a center.

    Arguments, errors and the samples that take no part: :class:`ClassMeanLoss`.
    """

    title = TITLE

    def sample_losses(self, s_emb: Tensor, t_emb: Tensor, labels: Tensor) -> Tensor:
        return nd_loss(s_emb, t_emb, self.centers, labels)
