"""InfoNCE form of the class-mean loss: towards the own class mean, away from all others."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from kd_det.errors import InvalidInputError
from kd_det.losses._dtype import at_least_float32
from kd_det.losses._rows import unit_rows
from kd_det.losses.class_means import ClassMeanLoss, check_shapes

TITLE = "center contrast loss"


def center_contrast_loss(
    s_emb: Tensor,
    centers: Tensor,
    labels: Tensor,
    tau: float = 0.1,
    seen: Tensor | None = None,
) -> Tensor:
    """Per-sample cross-entropy of ``softmax_c(cosine(s, c_c) / tau)`` against the class.

    A zero row has cosine 0 to every mean and costs the logarithm of their number.

    Args:
        s_emb: Student embeddings ``[N, D]``.
        centers: Class means of the teacher's embeddings ``[C, D]``; no gradient reaches them.
        labels: Class of each sample, int64 ``[N]``, values in ``[0, C)``; or the shares of all
            classes in each sample, float ``[N, C]``.
        tau: Temperature; the smaller, the more only the nearest means count.
        seen: Which classes have a mean, bool ``[C]``; the others are no alternatives. Each
            label must be of a seen class. None: all have.

    Returns:
        Loss of each sample ``[N]``, float32 (float64 for float64 input), >= 0.

    Raises:
        ValueError: If the shapes do not fit each other or ``tau`` is not positive.

    Source: "Improving Knowledge Distillation via Regularizing Feature Norm and Direction",
    arXiv 2305.17007, the study of feature directions.
    """
    check_shapes(TITLE, s_emb, centers, labels)
    _check_tau(tau)
    # Autocast would compute the matrix product in half precision.
    with torch.autocast(s_emb.device.type, enabled=False):
        s, c = unit_rows(at_least_float32(s_emb)), unit_rows(at_least_float32(centers.detach()))
        logits = s @ c.to(s.dtype).T / tau
    if seen is not None:
        # Not -inf, which a share of 0 would make NaN.
        logits = logits.masked_fill(~seen, torch.finfo(logits.dtype).min)
    return F.cross_entropy(logits, labels, reduction="none")


def _check_tau(tau: float) -> None:
    if not tau > 0:
        raise InvalidInputError(f"{TITLE} needs tau > 0, got tau={tau}")


class CenterContrastLoss(ClassMeanLoss):
    """Mean of :func:`center_contrast_loss` over the samples whose class has a center.

    The alternatives are all classes that have a center. Other arguments, errors and the
    samples that take no part: :class:`ClassMeanLoss`. ``t_emb`` is what the centers are
    gathered from; the value does not depend on it.

    Args:
        tau: Temperature. No published code has one. At the default, an embedding along its
            own mean and at right angles to 80 others costs 0.004; at 1 it would cost 3.4, with
            little left to gain by turning it.

    Raises:
        ValueError: If ``tau`` is not positive.
    """

    title = TITLE

    def __init__(
        self,
        num_classes: int,
        embed_dim: int,
        loss_weight: float = 1.0,
        background: bool = False,
        tau: float = 0.1,
    ) -> None:
        super().__init__(num_classes, embed_dim, loss_weight, background)
        _check_tau(tau)
        self.tau = tau

    def sample_losses(self, s_emb: Tensor, t_emb: Tensor, labels: Tensor) -> Tensor:
        return center_contrast_loss(s_emb, self.centers, labels, self.tau, self.counts > 0)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, tau={self.tau}"
