"""Distillation of class maps: each class of each position is a binary task, as in training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kd_det.errors import InvalidInputError
from kd_det.losses._dtype import at_least_float32
from kd_det.losses._pyramids import check_pyramids
from kd_det.losses.positives import per_positive


def binary_kd_loss(
    s_logits: Sequence[Tensor],
    t_logits: Sequence[Tensor],
    beta: float = 1.0,
    softmax: int | None = None,
) -> Tensor:
    """Sum over levels, positions and classes of ``|p_t - p_s|^beta * BCE(p_s, p_t)``.

    ``p`` is the sigmoid of a logit: a softmax over the classes would not see whether there is an
    object at all. The weight is large where the student is wrong, and so for few positions. It is
    a function of ``p_s`` too, as in the quality focal loss, which this is with ``beta=2``.

    Heads with a softmax over classes and background, ``softmax`` channels for each anchor, cost
    ``max_c |p_t - p_s|^beta * KL(p_t || p_s)`` for each anchor instead.

    Args:
        s_logits: Student class maps, fine to deep, each ``[N, A * C, H, W]``.
        t_logits: Teacher class maps of the same shapes; no gradient reaches them.
        beta: Exponent of the weight, 0 or at least 1: between, its slope is infinite at equality.
        softmax: Number of channels of an anchor in heads with a softmax; None for a sigmoid.

    Returns:
        Loss of each image ``[N]``, float32 (float64 for float64 input). 0 for equal maps.

    Raises:
        ValueError: If the numbers of levels or the shapes of a level differ, or channels are no
            multiple of ``softmax``.

    Source: "Bridging Cross-task Protocol Inconsistency for Distillation in Dense Object
    Detection" (BCKD), arXiv 2308.14286, section 3.2. The form for a softmax is not published.
    """
    check_pyramids("BinaryKD", s_logits, t_logits)
    images = []
    for s, t in zip(s_logits, t_logits):
        s, t = at_least_float32(s), at_least_float32(t.detach())
        loss = _binary(s, t, beta) if softmax is None else _softmax(s, t, beta, softmax)
        images.append(loss.flatten(1).sum(dim=1))
    return torch.stack(images).sum(dim=0)


def _binary(s: Tensor, t: Tensor, beta: float) -> Tensor:
    p = t.sigmoid()
    weight = (p - s.sigmoid()).abs().pow(beta)
    return weight * F.binary_cross_entropy_with_logits(s, p, reduction="none")


def _softmax(s: Tensor, t: Tensor, beta: float, channels: int) -> Tensor:
    if channels < 2 or s.shape[1] % channels:
        raise InvalidInputError(
            f"BinaryKD with softmax={channels} needs class maps of a multiple of so many channels, "
            f"at least 2, found {list(s.shape)}"
        )
    log_s, log_t = (x.unflatten(1, (-1, channels)).log_softmax(dim=2) for x in (s, t))
    weight = (log_t.exp() - log_s.exp()).abs().amax(dim=2).pow(beta)
    return weight * F.kl_div(log_s, log_t, reduction="none", log_target=True).sum(dim=2)


def joint_logits(logits: Tensor, objectness: Tensor) -> Tensor:
    """Logits of the product of both probabilities, ``[N, A * C, H, W]``.

    Args:
        logits: Class maps ``[N, A * C, H, W]``.
        objectness: Objectness logits ``[N, A, H, W]``.
    """
    logits = at_least_float32(logits)
    anchors = objectness.shape[1]
    found = logits.unflatten(1, (anchors, -1))
    log_p = F.logsigmoid(found) + F.logsigmoid(objectness.to(found.dtype)).unsqueeze(2)
    # 1 - p = (1 - a) + a (1 - b), a sum of positive terms, so that nothing cancels.
    log_not = torch.logaddexp(
        F.logsigmoid(-found),
        F.logsigmoid(found) + F.logsigmoid(-objectness.to(found.dtype)).unsqueeze(2),
    )
    return (log_p - log_not).flatten(1, 2)


class BinaryKDLoss(nn.Module):
    """:func:`binary_kd_loss` of a batch, divided by the number of positives, with a weight.

    Divided like the code of BCKD, but for positions that a head's own loss ignores, which count
    here, and for the positives of other processes, which are not averaged.

    Args:
        loss_weight: Factor on the returned loss; 1 is that of BCKD for all of its detectors.
        beta: As in :func:`binary_kd_loss`.
        softmax: As in :func:`binary_kd_loss`.

    Raises:
        ValueError: If ``loss_weight`` is negative, or for another ``beta``.
    """

    def __init__(
        self, loss_weight: float = 1.0, beta: float = 1.0, softmax: int | None = None
    ) -> None:
        super().__init__()
        if loss_weight < 0 or not (beta == 0 or beta >= 1):
            raise InvalidInputError(
                "BinaryKDLoss needs loss_weight >= 0 and beta 0 or at least 1, got "
                f"loss_weight={loss_weight}, beta={beta}"
            )
        self.loss_weight = loss_weight
        self.beta = beta
        self.softmax = softmax

    def forward(
        self,
        s_logits: Sequence[Tensor],
        t_logits: Sequence[Tensor],
        positives: Sequence[Tensor] | None = None,
        s_objectness: Sequence[Tensor] | None = None,
        t_objectness: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Scalar loss of a batch.

        Args:
            s_logits: Student class maps, fine to deep, each ``[N, A * C, H, W]``.
            t_logits: Teacher class maps of the same shapes.
            positives: The student's positives, by whose number the sum is divided, as in a
                detector's own losses; None for the number of images. See
                :mod:`kd_det.losses.positives`.
            s_objectness: Logits ``[N, A, H, W]`` of heads that score objects and classes apart and
                multiply the two, as YOLOX does: its classes say nothing where there is no object.
            t_objectness: Those of the teacher.

        Raises:
            ValueError: If the shapes do not fit.
        """
        if s_objectness is not None:
            s_logits = list(map(joint_logits, s_logits, s_objectness))
        if t_objectness is not None:
            t_logits = [joint_logits(x.detach(), y) for x, y in zip(t_logits, t_objectness)]
        losses = binary_kd_loss(s_logits, t_logits, self.beta, self.softmax)
        return self.loss_weight * per_positive(losses, positives)

    def extra_repr(self) -> str:
        return f"loss_weight={self.loss_weight}, beta={self.beta}, softmax={self.softmax}"
