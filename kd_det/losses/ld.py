"""LD, localisation distillation: a box's edges as distributions, and where to compare them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kd_det.errors import InvalidInputError
from kd_det.losses._dtype import at_least_float32
from kd_det.losses._pyramids import check_pyramids
from kd_det.losses.box_kd import best_score
from kd_det.losses.positives import rows_at

EDGES = 4


def ld_loss(s_dists: Tensor, t_dists: Tensor, tau: float = 10.0) -> Tensor:
    """``tau^2 * KL(softmax(t / tau) || softmax(s / tau))`` of each box, mean over its edges.

    Args:
        s_dists: Student logits ``[N, 4 * K]``: for each edge its distribution over K distances.
        t_dists: Teacher logits of the same shape; no gradient reaches them.
        tau: Temperature.

    Returns:
        Loss of each box ``[N]``, float32 (float64 for float64 input). The paper adds up the edges
        and has no factor ``tau^2``; its code has both as here, and takes the mean over the K
        distances where a divergence is their sum: a loss that is K times smaller.

    Raises:
        ValueError: If the shapes do not fit.

    Source: "Localization Distillation for Dense Object Detection", arXiv 2102.12252, section 3.1;
    mmdet's ``LDHead``, which its authors wrote.
    """
    if s_dists.dim() != 2 or s_dists.shape != t_dists.shape or s_dists.shape[1] % EDGES:
        raise InvalidInputError(
            "LD needs distributions [N, 4 * K] of equal shape, got student "
            f"{list(s_dists.shape)} and teacher {list(t_dists.shape)}"
        )
    log_s, log_t = (
        (at_least_float32(x).unflatten(1, (EDGES, -1)) / tau).log_softmax(dim=2)
        for x in (s_dists, t_dists.detach())
    )
    divergence = F.kl_div(log_s, log_t, reduction="none", log_target=True).sum(dim=2)
    return tau**2 * divergence.mean(dim=1)


def iou(boxes: Tensor, others: Tensor) -> Tensor:
    """IoU of boxes ``[P, 4]`` with others ``[G, 4]``, ``[P, G]``."""
    a, b = boxes[:, None], others[None]
    inside = _sides(torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:]))
    inside = inside.prod(dim=-1)
    areas = [_sides(x[..., :2], x[..., 2:]).prod(dim=-1) for x in (a, b)]
    eps = torch.finfo(boxes.dtype).eps
    return inside / (areas[0] + areas[1] - inside).clamp(min=eps)


def diou(boxes: Tensor, others: Tensor) -> Tensor:
    """IoU minus the squared distance of the centers over that of the hull's corners.

    Args:
        boxes: Corners ``[P, 4]``.
        others: Corners ``[G, 4]``.

    Returns:
        ``[P, G]``.
    """
    a, b = boxes[:, None], others[None]
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    distance = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2
    eps = torch.finfo(boxes.dtype).eps
    apart = distance.square().sum(dim=-1) / hull.square().sum(dim=-1).clamp(min=eps)
    return iou(boxes, others) - apart


def _sides(start: Tensor, end: Tensor) -> Tensor:
    return (end - start).clamp(min=0)


def valuable_region(
    priors: Sequence[Tensor], boxes: Tensor, gamma: float = 0.25, candidates: int = 9
) -> list[Tensor]:
    """Find the valuable localisation region: the priors around an object that are not positive.

    These are the priors with ``gamma * a <= DIoU <= a``. ``a``, the threshold of a positive, is
    that of ATSS for each object: mean plus standard deviation of the IoU of its candidates, which
    are the priors of each level with the closest centers.

    Args:
        priors: Anchors of each level ``[P, 4]``, corners.
        boxes: Objects ``[G, 4]``.
        gamma: How far the region reaches; 1 leaves nothing.
        candidates: Number of candidates of a level.

    Returns:
        For each level, bool ``[P, G]``.

    Source: "Localization Distillation for Dense Object Detection", arXiv 2102.12252, algorithm 1.
    """
    overlaps = [diou(level, boxes) for level in priors]
    chosen = []
    for level in priors:
        centers = (level[:, None, :2] + level[:, None, 2:] - boxes[:, :2] - boxes[:, 2:]) / 2
        distance = centers.square().sum(dim=-1)
        closest = distance.topk(min(candidates, len(level)), dim=0, largest=False).indices
        chosen.append(iou(level, boxes).gather(0, closest))
    found = torch.cat(chosen)
    spread = found.std(dim=0) if len(found) > 1 else torch.zeros_like(found[0])
    threshold = found.mean(dim=0) + spread
    return [(x >= gamma * threshold) & (x <= threshold) for x in overlaps]


class LDLoss(nn.Module):
    """Mean of :func:`ld_loss` over positives, plus that over the valuable localisation region.

    The published code adds up positives, weighted by the student's scores, and a quarter of the
    region, weighted by IoU. Its ``loss_weight=0.25`` is that of this loss where the scores of a
    batch's positives add up to K, and grows with the batch and the number of its objects.

    Without positives, it is the mean over all positions with the teacher's best score as weights,
    which the predictions of a student's features in the teacher's head are compared by.

    Args:
        loss_weight: Factor on the returned loss.
        tau: Temperature; 10 is the published one.
        region_weight: Factor on the mean over the region.

    Raises:
        ValueError: If a weight is negative or ``tau`` is not positive.
    """

    def __init__(
        self, loss_weight: float = 1.0, tau: float = 10.0, region_weight: float = 1.0
    ) -> None:
        super().__init__()
        if min(loss_weight, region_weight) < 0 or not tau > 0:
            raise InvalidInputError(
                "LDLoss needs loss_weight >= 0, region_weight >= 0 and tau > 0, got "
                f"loss_weight={loss_weight}, region_weight={region_weight}, tau={tau}"
            )
        self.loss_weight = loss_weight
        self.tau = tau
        self.region_weight = region_weight

    def forward(
        self,
        s_dists: Sequence[Tensor],
        t_dists: Sequence[Tensor],
        positives: Sequence[Tensor] | None = None,
        region: Sequence[Tensor] | None = None,
        t_logits: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Scalar loss of a batch.

        Args:
            s_dists: Student distributions, fine to deep, each ``[N, 4 * K, H, W]``.
            t_dists: Teacher distributions of the same shapes.
            positives: The student's positives, see :mod:`kd_det.losses.positives`.
            region: The positions of the valuable localisation region, in the same form.
            t_logits: Without positives, the teacher's class maps ``[N, C, H, W]``.

        Raises:
            ValueError: If the shapes do not fit, or there is neither of the two.
        """
        check_pyramids("LD", s_dists, t_dists)
        if positives is not None:
            loss = self._mean_at(s_dists, t_dists, positives)
            if region is not None:
                loss = loss + self.region_weight * self._mean_at(s_dists, t_dists, region)
        elif t_logits is not None:
            loss = self._weighted_mean(s_dists, t_dists, t_logits)
        else:
            raise InvalidInputError("LDLoss needs positives or t_logits, got neither")
        return self.loss_weight * loss

    def _mean_at(
        self, s_dists: Sequence[Tensor], t_dists: Sequence[Tensor], at: Sequence[Tensor]
    ) -> Tensor:
        losses = ld_loss(rows_at(s_dists, at), rows_at(t_dists, at), self.tau)
        return losses.sum() / max(len(losses), 1)

    def _weighted_mean(
        self, s_dists: Sequence[Tensor], t_dists: Sequence[Tensor], t_logits: Sequence[Tensor]
    ) -> Tensor:
        sums, totals = [], []
        for s, t, logits in zip(s_dists, t_dists, t_logits):
            images = len(s)
            s_rows, t_rows = (x.permute(0, 2, 3, 1).flatten(0, 2) for x in (s, t))
            weight = best_score(logits, 1).flatten(1)
            losses = ld_loss(s_rows, t_rows, self.tau)
            if losses.numel() != weight.numel():
                raise InvalidInputError(
                    "LD needs distributions and class maps of the same grids, got "
                    f"{list(s.shape)} and {list(logits.shape)}"
                )
            sums.append(
                (weight * losses.unflatten(0, (images, -1))).sum(dim=1) if images else losses
            )
            totals.append(weight.sum(dim=1))
        total = torch.stack(totals).sum(dim=0).clamp(min=torch.finfo(totals[0].dtype).tiny)
        losses = torch.stack(sums).sum(dim=0) / total
        return losses.sum() / max(len(losses), 1)

    def extra_repr(self) -> str:
        return f"loss_weight={self.loss_weight}, tau={self.tau}, region_weight={self.region_weight}"
