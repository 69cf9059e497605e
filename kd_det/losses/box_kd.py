"""Distillation of boxes, whatever form a head predicts them in: their overlap is what counts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kd_det.errors import InvalidInputError
from kd_det.losses._dtype import at_least_float32
from kd_det.losses._pyramids import check_pyramids
from kd_det.losses.positives import per_positive

WEIGHTS = ("difference", "teacher")
# Least area, in units of the largest coordinate. Equal boxes without an area overlap fully.
EPS = 1e-12
# Divided by less, gradients of float32 would overflow.
SMALLEST = 1e-12


def overlap_loss(s_boxes: Tensor, t_boxes: Tensor, giou: bool = False) -> Tensor:
    """``1 - IoU`` of each pair of boxes, or ``1 - GIoU``.

    Coordinates are divided by the largest one of a pair, which changes nothing but that areas
    neither overflow nor vanish. Boxes within :data:`SMALLEST` of the origin are points.

    Args:
        s_boxes: Student boxes ``[..., 4]``, corners x1, y1, x2, y2.
        t_boxes: Teacher boxes of the same shape; no gradient reaches them.
        giou: Whether to subtract the share of the hull that is in neither box, so that boxes
            that do not overlap have a gradient.

    Returns:
        Losses ``[...]``, float32 (float64 for float64 input), in ``[0, 1]``, GIoU in ``[0, 2]``.
    """
    s, t = at_least_float32(s_boxes), at_least_float32(t_boxes.detach())
    largest = torch.maximum(s.detach().abs(), t.abs()).amax(dim=-1, keepdim=True)
    largest = largest.clamp(min=SMALLEST)
    s, t = s / largest, t / largest
    inside = _area(torch.maximum(s[..., :2], t[..., :2]), torch.minimum(s[..., 2:], t[..., 2:]))
    union = _area(s[..., :2], s[..., 2:]) + _area(t[..., :2], t[..., 2:]) - inside
    loss = 1 - (inside + EPS) / (union + EPS)
    if giou:
        hull = _area(torch.minimum(s[..., :2], t[..., :2]), torch.maximum(s[..., 2:], t[..., 2:]))
        # Corners in the wrong order make a union larger than the hull.
        loss = loss + (hull - union).clamp(min=0) / (hull + EPS)
    return loss


def _area(start: Tensor, end: Tensor) -> Tensor:
    return (end - start).clamp(min=0).prod(dim=-1)


def box_kd_loss(
    s_boxes: Sequence[Tensor],
    t_boxes: Sequence[Tensor],
    weights: Sequence[Tensor],
    giou: bool = False,
) -> Tensor:
    """Weighted sum over levels, positions and anchors of :func:`overlap_loss`.

    Args:
        s_boxes: Student boxes, fine to deep, each ``[N, A * 4, H, W]``: corners of each anchor.
        t_boxes: Teacher boxes of the same shapes; no gradient reaches them.
        weights: Weight of each box ``[N, A, H, W]``.
        giou: As in :func:`overlap_loss`.

    Returns:
        Loss of each image ``[N]``, float32 (float64 for float64 input). 0 for equal boxes.

    Raises:
        ValueError: If the numbers of levels or the shapes of a level differ.

    Source: "Bridging Cross-task Protocol Inconsistency for Distillation in Dense Object
    Detection" (BCKD), arXiv 2308.14286, section 3.3, which has IoU; its code has GIoU.
    """
    check_pyramids("BoxKD", s_boxes, t_boxes)
    images = []
    for s, t, weight in zip(s_boxes, t_boxes, weights):
        # [N, A, 4, H, W] -> [N, A, H, W, 4]
        s_rows, t_rows = (x.unflatten(1, (-1, 4)).permute(0, 1, 3, 4, 2) for x in (s, t))
        images.append((weight * overlap_loss(s_rows, t_rows, giou)).flatten(1).sum(dim=1))
    return torch.stack(images).sum(dim=0)


def best_difference(
    s_logits: Tensor, t_logits: Tensor, anchors: int, softmax: bool = False
) -> Tensor:
    """``max_c |p_t - p_s|`` of each anchor, ``[N, A * C, H, W] -> [N, A, H, W]``, detached."""
    s, t = (_probabilities(x, anchors, softmax) for x in (s_logits, t_logits))
    return (t - s).abs_().amax(dim=2)


def best_score(t_logits: Tensor, anchors: int, softmax: bool = False) -> Tensor:
    """``max_c p_t`` of each anchor, ``[N, A * C, H, W] -> [N, A, H, W]``, detached."""
    return _probabilities(t_logits, anchors, softmax).amax(dim=2)


def _probabilities(logits: Tensor, anchors: int, softmax: bool) -> Tensor:
    """Probabilities of the classes ``[N, A, C, H, W]``, without background, a softmax's last."""
    logits = at_least_float32(logits.detach()).unflatten(1, (anchors, -1))
    return logits.softmax(dim=2)[:, :, :-1] if softmax else logits.sigmoid()


class BoxKDLoss(nn.Module):
    """:func:`box_kd_loss` of a batch, weighted by what the class maps say, with a weight.

    Args:
        loss_weight: Factor on the returned loss; 4 is that of BCKD.
        weight: ``'difference'``: a box counts ``max_c |p_t - p_s|``, most where the classes are
            not learned yet, and the sum is divided by the number of positives (BCKD).
            ``'teacher'``: a box counts ``max_c p_t``, the teacher's score, and the value is the
            weighted mean of each image, then the mean of images.
        giou: As in :func:`overlap_loss`.
        softmax: Whether scores are a softmax over classes and background.

    Raises:
        ValueError: If ``loss_weight`` is negative, or for an unknown ``weight``.
    """

    def __init__(
        self,
        loss_weight: float = 1.0,
        weight: str = "difference",
        giou: bool = False,
        softmax: bool = False,
    ) -> None:
        super().__init__()
        if loss_weight < 0 or weight not in WEIGHTS:
            raise InvalidInputError(
                f"BoxKDLoss needs loss_weight >= 0 and weight one of {WEIGHTS}, got "
                f"loss_weight={loss_weight}, weight={weight!r}"
            )
        self.loss_weight = loss_weight
        self.weight = weight
        self.giou = giou
        self.softmax = softmax

    def forward(
        self,
        s_boxes: Sequence[Tensor],
        t_boxes: Sequence[Tensor],
        t_logits: Sequence[Tensor],
        s_logits: Sequence[Tensor] | None = None,
        positives: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Scalar loss of a batch.

        Args:
            s_boxes: Student boxes, fine to deep, each ``[N, A * 4, H, W]``.
            t_boxes: Teacher boxes of the same shapes.
            t_logits: Teacher class maps ``[N, A * C, H, W]`` of the same grids.
            s_logits: Student class maps; only ``weight='difference'`` reads and needs them.
            positives: As in :class:`kd_det.losses.BinaryKDLoss`, for ``weight='difference'``.

        Raises:
            ValueError: If the shapes do not fit.
        """
        check_pyramids("BoxKD", s_boxes, t_boxes)
        _check_grids(t_boxes, t_logits)
        anchors = [x.shape[1] // 4 for x in t_boxes]
        if self.weight == "teacher":
            weights = [best_score(t, n, self.softmax) for t, n in zip(t_logits, anchors)]
            losses = box_kd_loss(s_boxes, t_boxes, weights, self.giou)
            total = torch.stack([w.flatten(1).sum(dim=1) for w in weights]).sum(dim=0)
            return self.loss_weight * per_positive(losses / total.clamp(min=EPS), None)
        if s_logits is None:
            raise InvalidInputError("BoxKDLoss(weight='difference') needs s_logits, got None")
        check_pyramids("BoxKD", s_logits, t_logits)
        weights = [
            best_difference(s, t, n, self.softmax) for s, t, n in zip(s_logits, t_logits, anchors)
        ]
        losses = box_kd_loss(s_boxes, t_boxes, weights, self.giou)
        return self.loss_weight * per_positive(losses, positives)

    def extra_repr(self) -> str:
        return (
            f"loss_weight={self.loss_weight}, weight={self.weight!r}, giou={self.giou}, "
            f"softmax={self.softmax}"
        )


def _check_grids(boxes: Sequence[Tensor], logits: Sequence[Tensor]) -> None:
    found = [[list(x.shape) for x in side] for side in (boxes, logits)]
    fits = len(boxes) == len(logits) and all(
        b[1] % 4 == 0 and b[0] == c[0] and b[2:] == c[2:] and c[1] % max(b[1] // 4, 1) == 0
        for b, c in zip(*found)
    )
    if not fits:
        raise InvalidInputError(
            "BoxKD needs boxes [N, A * 4, H, W] and class maps [N, A * C, H, W] of the same grids, "
            f"got boxes {found[0]} and class maps {found[1]}"
        )
