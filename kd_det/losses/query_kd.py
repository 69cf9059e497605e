"""Distillation of the classes that two decoders predict from the same queries."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from kd_det.losses._dtype import at_least_float32
from kd_det.losses._queries import check_queries, check_weights, query_weights, weighted_mean


def query_kd_loss(s_logits: Tensor, t_logits: Tensor, softmax: bool = False) -> Tensor:
    """``KL(p_t || p_s)`` of each query, ``[N, Q, C] -> [N, Q]``.

    ``p`` is the softmax of the logits, or of each class the sigmoid: then each class is a binary
    task, as in training, and their divergences are summed.

    Args:
        s_logits: Student logits ``[N, Q, C]``.
        t_logits: Teacher logits of the same queries; no gradient reaches them.
        softmax: Whether classes, and background, exclude one another.

    Returns:
        Loss of each query, float32 (float64 for float64 input). 0 for equal logits.

    Raises:
        ValueError: If the shapes differ.

    Source: "KD-DETR: Knowledge Distillation for Detection Transformer with Consistent Distillation
    Points Sampling", arXiv 2211.08071.
    """
    check_queries("QueryKD", s_logits, t_logits)
    s, t = at_least_float32(s_logits), at_least_float32(t_logits.detach())
    if softmax:
        log_s, log_t = s.log_softmax(dim=-1), t.log_softmax(dim=-1)
        return F.kl_div(log_s, log_t, reduction="none", log_target=True).sum(dim=-1)
    # Of differences of logarithms, which vanish at equality, unlike those of two entropies.
    yes = t.sigmoid() * (F.logsigmoid(t) - F.logsigmoid(s))
    no = (-t).sigmoid() * (F.logsigmoid(-t) - F.logsigmoid(-s))
    return (yes + no).sum(dim=-1)


class QueryKDLoss(nn.Module):
    """:func:`query_kd_loss` of a batch, weighted by :func:`query_weights`, with a weight.

    Args:
        loss_weight: Factor on the returned loss.
        softmax: Whether scores are a softmax over classes and background, as DETR's.

    Raises:
        ValueError: If ``loss_weight`` is negative.
    """

    def __init__(self, loss_weight: float = 1.0, softmax: bool = False) -> None:
        super().__init__()
        check_weights("QueryKDLoss", loss_weight=loss_weight)
        self.loss_weight = loss_weight
        self.softmax = softmax

    def forward(self, s_logits: Tensor, t_logits: Tensor) -> Tensor:
        """Scalar loss of a batch: the :func:`weighted_mean` of its queries.

        Args:
            s_logits: Student logits ``[N, Q, C]``.
            t_logits: Teacher logits of the same queries.

        Raises:
            ValueError: If the shapes differ.
        """
        losses = query_kd_loss(s_logits, t_logits, self.softmax)
        return self.loss_weight * weighted_mean(losses, query_weights(t_logits, self.softmax))

    def extra_repr(self) -> str:
        return f"loss_weight={self.loss_weight}, softmax={self.softmax}"
