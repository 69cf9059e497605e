"""Distillation of the boxes that two decoders predict from the same queries."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kd_det.errors import InvalidInputError
from kd_det.losses._dtype import at_least_float32
from kd_det.losses._queries import check_queries, check_weights, query_weights, weighted_mean
from kd_det.losses.box_kd import overlap_loss


def query_box_loss(s_boxes: Tensor, t_boxes: Tensor, l1: float = 5.0, giou: float = 2.0) -> Tensor:
    """``l1 |b_s - b_t|_1 + giou (1 - GIoU)`` of each query, ``[N, Q, 4] -> [N, Q]``.

    Args:
        s_boxes: Student boxes ``[N, Q, 4]``: centre, width and height, relative to the image.
        t_boxes: Teacher boxes of the same queries; no gradient reaches them.
        l1: Weight of the sum of the four differences.
        giou: Weight of the overlap's loss.

    Returns:
        Loss of each query, float32 (float64 for float64 input). 0 for equal boxes.

    Raises:
        ValueError: If the shapes differ.

    Source: as :func:`kd_det.losses.query_kd_loss`.
    """
    check_queries("QueryBox", s_boxes, t_boxes)
    s, t = at_least_float32(s_boxes), at_least_float32(t_boxes.detach())
    distance = (s - t).abs().sum(dim=-1)
    return l1 * distance + giou * overlap_loss(_corners(s), _corners(t), giou=True)


def _corners(boxes: Tensor) -> Tensor:
    center, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([center - half, center + half], dim=-1)


class QueryBoxLoss(nn.Module):
    """:func:`query_box_loss` of a batch, weighted by :func:`query_weights`, with a weight.

    Args:
        loss_weight: Factor on the returned loss.
        l1: As in :func:`query_box_loss`.
        giou: As in :func:`query_box_loss`.
        softmax: As in :class:`QueryKDLoss`.

    Raises:
        ValueError: If a weight is negative.
    """

    def __init__(
        self, loss_weight: float = 1.0, l1: float = 5.0, giou: float = 2.0, softmax: bool = False
    ) -> None:
        super().__init__()
        check_weights("QueryBoxLoss", loss_weight=loss_weight, l1=l1, giou=giou)
        self.loss_weight = loss_weight
        self.l1 = l1
        self.giou = giou
        self.softmax = softmax

    def forward(self, s_boxes: Tensor, t_boxes: Tensor, t_logits: Tensor) -> Tensor:
        """Scalar loss of a batch: the :func:`weighted_mean` of its queries.

        Args:
            s_boxes: Student boxes ``[N, Q, 4]``: centre, width and height, relative to the image.
            t_boxes: Teacher boxes of the same queries.
            t_logits: Teacher logits ``[N, Q, C]`` of the same queries.

        Raises:
            ValueError: If the shapes differ.
        """
        losses = query_box_loss(s_boxes, t_boxes, self.l1, self.giou)
        if t_logits.shape[:2] != t_boxes.shape[:2]:
            raise InvalidInputError(
                "QueryBox needs logits of the same queries as the boxes, got logits "
                f"{list(t_logits.shape)} and boxes {list(t_boxes.shape)}"
            )
        return self.loss_weight * weighted_mean(losses, query_weights(t_logits, self.softmax))

    def extra_repr(self) -> str:
        weights = f"loss_weight={self.loss_weight}, l1={self.l1}, giou={self.giou}"
        return f"{weights}, softmax={self.softmax}"
