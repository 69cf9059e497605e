"""DKD, decoupled knowledge distillation on logits, finite whatever the logits are."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kd_det.errors import InvalidInputError
from kd_det.losses._dtype import at_least_float32
from kd_det.losses._rows import mean_over


def dkd_loss(
    s_logits: Tensor,
    t_logits: Tensor,
    labels: Tensor,
    alpha: float = 1.0,
    beta: float = 0.25,
    tau: float = 1.0,
) -> Tensor:
    """Per-sample ``tau^2 * (alpha * KL(b_t || b_s) + beta * KL(q_t || q_s))``.

    ``b`` is the distribution over "the class y" and "any other", ``q`` that over the classes
    other than y, both at temperature ``tau``. With two classes ``q`` is certain and costs 0.

    The published code takes logarithms of softmax outputs, which are infinite once a logit
    lies some 90 below the largest. Here both parts come from log-sum-exp of the logits: with
    ``m = z_y - logsumexp(z_c, c != y)``, ``log b = (logsigmoid(m), logsigmoid(-m))``; where
    the published code is finite, value and gradient are the same.

    Args:
        s_logits: Student logits ``[N, C]``, the last column background where there is one.
        t_logits: Teacher logits ``[N, C]``; no gradient reaches them.
        labels: Class of each sample, int64 ``[N]``, values in ``[0, C)``.
        alpha: Weight of the target class part.
        beta: Weight of the part of the other classes.
        tau: Temperature.

    Returns:
        Loss of each sample ``[N]``, float32 (float64 for float64 input).

    Raises:
        ValueError: If the shapes do not fit, there are fewer than two classes, ``tau`` is not
            positive or a weight is negative.

    Source: "Decoupled Knowledge Distillation", arXiv 2203.08679, equation 7.
    """
    _check_options(alpha, beta, tau)
    _check_shapes(s_logits, t_logits, labels)
    s_margin, s_others = _decouple(at_least_float32(s_logits) / tau, labels)
    t_margin, t_others = _decouple(at_least_float32(t_logits.detach()) / tau, labels)
    target = _kl(_log_binary(t_margin), _log_binary(s_margin))
    others = _kl(t_others.log_softmax(dim=1), s_others.log_softmax(dim=1))
    return tau**2 * (alpha * target + beta * others)


def _decouple(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Margin of the target over all others ``[N]``, and the others' logits ``[N, C - 1]``."""
    target = labels.unsqueeze(1)
    columns = torch.arange(logits.shape[1] - 1, device=logits.device)
    others = logits.gather(1, columns + (columns >= target))
    return logits.gather(1, target).squeeze(1) - others.logsumexp(dim=1), others


def _log_binary(margin: Tensor) -> Tensor:
    return torch.stack([F.logsigmoid(margin), F.logsigmoid(-margin)], dim=1)


def _kl(log_t: Tensor, log_s: Tensor) -> Tensor:
    return F.kl_div(log_s, log_t, reduction="none", log_target=True).sum(dim=1)


def _check_shapes(s_logits: Tensor, t_logits: Tensor, labels: Tensor) -> None:
    shapes = (
        f"got s_logits {list(s_logits.shape)}, t_logits {list(t_logits.shape)}, "
        f"labels {list(labels.shape)}"
    )
    if s_logits.dim() != 2 or s_logits.shape != t_logits.shape:
        raise InvalidInputError(f"DKD needs s_logits and t_logits [N, C] of equal shape; {shapes}")
    if labels.shape != s_logits.shape[:1]:
        raise InvalidInputError(
            "DKD needs one label for each row of logits, labels [N] (images that are mixed by "
            f"Mixup or CutMix have none); {shapes}"
        )
    if s_logits.shape[1] < 2:
        raise InvalidInputError(f"DKD needs logits of at least two classes; {shapes}")


def _check_options(alpha: float, beta: float, tau: float, loss_weight: float = 1.0) -> None:
    if not tau > 0 or min(alpha, beta, loss_weight) < 0:
        raise InvalidInputError(
            "DKD needs tau > 0 and alpha, beta and loss_weight >= 0, got "
            f"tau={tau}, alpha={alpha}, beta={beta}, loss_weight={loss_weight}"
        )


class DKDLoss(nn.Module):
    """Mean of :func:`dkd_loss` over the samples whose label is a column of the logits.

    Samples with other labels (to be ignored, or background without a column) take no part.

    Args:
        alpha: Weight of the target class part.
        beta: Weight of the part of the other classes; the default is the published
            one for COCO.
        tau: Temperature.
        loss_weight: Factor on the returned loss.

    Raises:
        ValueError: If ``tau`` is not positive or a weight is negative.
    """

    def __init__(
        self, alpha: float = 1.0, beta: float = 0.25, tau: float = 1.0, loss_weight: float = 1.0
    ) -> None:
        super().__init__()
        _check_options(alpha, beta, tau, loss_weight)
        self.alpha = alpha
        self.beta = beta
        self.tau = tau
        self.loss_weight = loss_weight

    def forward(self, s_logits: Tensor, t_logits: Tensor, labels: Tensor) -> Tensor:
        """Scalar loss of logits ``[N, C]`` with labels ``[N]``.

        Raises:
            ValueError: If the shapes do not fit or there are fewer than two classes.
        """
        _check_shapes(s_logits, t_logits, labels)
        known = (labels >= 0) & (labels < s_logits.shape[1])
        columns = torch.where(known, labels, 0)
        losses = dkd_loss(s_logits, t_logits, columns, self.alpha, self.beta, self.tau)
        return self.loss_weight * mean_over(losses, known)

    def extra_repr(self) -> str:
        return (
            f"alpha={self.alpha}, beta={self.beta}, tau={self.tau}, loss_weight={self.loss_weight}"
        )
