"""Norm part of KD++'s study: L2 to the teacher's embedding, or stepwise growth of the norm."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kd_det.errors import InvalidInputError
from kd_det.losses._dtype import at_least_float32
from kd_det.losses._rows import divisor, largest_entry

MODES = ("l2", "sifn")


def feature_l2_loss(s_emb: Tensor, t_emb: Tensor) -> Tensor:
    """Per-sample squared L2 distance, divided by the embedding's size: ``|s - t|^2 / D``.

    The division makes the mean over a batch the usual mean squared error, whose scale does not
    depend on D. The paper's code has no such loss to take another convention from; multiply
    ``loss_weight`` by D for the plain squared distance.

    Args:
        s_emb: Student embeddings ``[N, D]``.
        t_emb: Teacher embeddings ``[N, D]`` of the same samples; no gradient reaches them.

    Returns:
        Loss of each sample ``[N]``, float32 (float64 for float64 input).

    Raises:
        ValueError: If the shapes differ or are not ``[N, D]``.

    Source: the study of feature norms in "Improving Knowledge Distillation via Regularizing
    Feature Norm and Direction", arXiv 2305.17007.
    """
    if s_emb.dim() != 2 or s_emb.shape != t_emb.shape:
        raise InvalidInputError(
            "feature L2 loss needs embeddings s_emb and t_emb [N, D] of equal shape, got s_emb "
            f"{list(s_emb.shape)}, t_emb {list(t_emb.shape)}. Where only the sizes differ, put a "
            "connector on the student's embedding"
        )
    return (at_least_float32(s_emb) - at_least_float32(t_emb.detach())).square().mean(dim=1)


def sifn_loss(s_emb: Tensor, step: float = 1.0) -> Tensor:
    """Per-sample ``(|s| - (stopgrad(|s|) + step))^2``: stepwise increasing feature norm.

    The target moves along with the student, so the value is always ``step ** 2``. What trains
    is the gradient, ``-2 * step * s / |s|``: the same pull outwards at any norm. A zero row has
    no direction to grow in and no gradient.

    Args:
        s_emb: Student embeddings ``[N, D]``.
        step: By how much the target exceeds the present norm.

    Returns:
        Loss of each sample ``[N]``, float32 (float64 for float64 input).

    Raises:
        ValueError: If the embeddings are not ``[N, D]`` or ``step`` is not positive.

    Source: "Larger Norm More Transferable", arXiv 1811.07456 (SAFN); for distillation the
    study of feature norms in arXiv 2305.17007.
    """
    _check_step(step)
    if s_emb.dim() != 2:
        raise InvalidInputError(f"SIFN loss needs embeddings s_emb [N, D], got {list(s_emb.shape)}")
    s = at_least_float32(s_emb)
    scale = divisor(largest_entry(s.detach()))
    norm = torch.linalg.vector_norm(s / scale, dim=1)
    # The difference is 0 and carries the gradient; norms themselves could overflow.
    growth = (norm - norm.detach()) * scale.squeeze(1)
    return (growth - step).square()


def _check_step(step: float) -> None:
    if not step > 0:
        raise InvalidInputError(f"SIFN loss needs step > 0, got step={step}")


class FeatureNormLoss(nn.Module):
    """Mean of :func:`feature_l2_loss` or :func:`sifn_loss` over the samples.

    Args:
        mode: ``'l2'``, towards the teacher's embedding; ``'sifn'``, towards a larger norm of
            the student's own.
        step: By how much ``'sifn'`` asks each norm to grow; not used by ``'l2'``.
        loss_weight: Factor on the returned loss.

    Raises:
        ValueError: If ``mode`` is unknown, ``step`` is not positive or ``loss_weight`` is
            negative.
    """

    def __init__(self, mode: str = "l2", step: float = 1.0, loss_weight: float = 1.0) -> None:
        super().__init__()
        if mode not in MODES:
            raise InvalidInputError(
                f"FeatureNormLoss: expected mode to be one of {MODES}, got {mode!r}"
            )
        if loss_weight < 0:
            raise InvalidInputError(f"FeatureNormLoss needs loss_weight >= 0, got {loss_weight}")
        _check_step(step)
        self.mode = mode
        self.step = step
        self.loss_weight = loss_weight

    def forward(self, s_emb: Tensor, t_emb: Tensor | None = None) -> Tensor:
        """Scalar loss of embeddings ``[N, D]``; ``'sifn'`` needs no teacher's.

        Raises:
            ValueError: If the shapes do not fit, or ``'l2'`` is given no ``t_emb``.
        """
        if self.mode == "sifn":
            losses = sifn_loss(s_emb, self.step)
        elif t_emb is None:
            raise InvalidInputError("FeatureNormLoss with mode='l2' needs t_emb [N, D], got None")
        else:
            losses = feature_l2_loss(s_emb, t_emb)
        return self.loss_weight * losses.sum() / max(len(losses), 1)

    def extra_repr(self) -> str:
        step = f", step={self.step}" if self.mode == "sifn" else ""
        return f"mode={self.mode!r}{step}, loss_weight={self.loss_weight}"
