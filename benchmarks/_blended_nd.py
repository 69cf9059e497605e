"""ND loss whose direction lies between the class mean and the teacher's embedding of the RoI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kd_det.errors import InvalidInputError
from kd_det.losses._dtype import at_least_float32
from kd_det.losses._rows import unit_rows
from kd_det.losses.class_means import ClassMeanLoss, as_rows, check_shapes, directions
from kd_det.losses.nd import norm_and_direction

TITLE = "blended ND loss"


def blended_nd_loss(
    s_emb: Tensor, t_emb: Tensor, centers: Tensor, labels: Tensor, own: float = 0.5
) -> Tensor:
    """Per-sample ND loss towards ``unit((1 - own) * e_y + own * t / |t|)``.

    All RoIs of a class share its mean, wherever the box lies in them; the teacher's own embedding
    tells them apart. With ``own=0`` it is :func:`kd_det.losses.nd.nd_loss`.

    Args:
        s_emb: Student embeddings ``[N, D]``.
        t_emb: Teacher embeddings ``[N, D]`` of the same samples; no gradient reaches them.
        centers: Class means of the teacher's embeddings ``[C, D]``; no gradient reaches them.
        labels: Class of each sample, int64 ``[N]``; or shares of the classes, float ``[N, C]``.
        own: The share of the teacher's own embedding, in ``[0, 1]``.

    Returns:
        Loss of each sample ``[N]``, float32 (float64 for float64 input), in ``[0, 2]``.

    Raises:
        ValueError: If the shapes do not fit each other, or ``own`` is no share.
    """
    _check_own(own)
    check_shapes(TITLE, s_emb, centers, labels, t_emb)
    s, t = at_least_float32(s_emb), at_least_float32(t_emb.detach())
    direction = directions(at_least_float32(centers.detach()), labels).to(s.dtype)
    if own:
        direction = unit_rows((1 - own) * direction + own * unit_rows(t))
    return norm_and_direction(s, t, direction)


def _check_own(own: float) -> None:
    if not 0 <= own <= 1:
        raise InvalidInputError(f"{TITLE}: expected own in [0, 1], found {own}")


class BlendedNDLoss(ClassMeanLoss):
    """Mean of :func:`blended_nd_loss` over the samples whose class has a center.

    Arguments, errors and the samples that take no part: :class:`ClassMeanLoss`.

    Args:
        own: The share of the teacher's own embedding in the direction.
        keep: With ``class_weight``, whether what the class layer does not see is drawn to the
            teacher's own embedding, instead of being left out.
        **options: Of :class:`ClassMeanLoss`.
    """

    title = TITLE

    def __init__(self, *args: Any, own: float = 0.5, keep: bool = False, **options: Any) -> None:
        super().__init__(*args, **options)
        _check_own(own)
        self.own = own
        self.keep = keep

    def forward(
        self,
        s_emb: Tensor | Sequence[Tensor],
        t_emb: Tensor | Sequence[Tensor],
        labels: Tensor | Sequence[Tensor],
        t_logits: Tensor | None = None,
        class_weight: Tensor | None = None,
    ) -> Tensor:
        """As of :class:`ClassMeanLoss`.

        Args:
            s_emb: Student embeddings.
            t_emb: Teacher embeddings.
            labels: Classes.
            t_logits: ``[N, C]`` of the teacher: its confidence in the label weights a sample.
            class_weight: ``[C, D]`` of the layer behind the teacher's embedding: what it does not
                see takes no part.
        """
        s_emb, t_emb, labels = as_rows(s_emb, t_emb, labels)
        check_shapes(self.title, s_emb, self.centers, labels, t_emb)
        self._require_centers()
        takes_part, labels = self.choose(labels)
        if class_weight is None:
            losses = self.sample_losses(s_emb, t_emb, labels)
        else:
            losses = self._split(s_emb, t_emb, labels, class_weight)
        weights = takes_part.float()
        if t_logits is not None:
            sure = t_logits.detach().float().softmax(dim=1).gather(1, labels[:, None])[:, 0]
            weights = weights * sure
        losses = torch.where(takes_part, losses, 0)
        return self.loss_weight * (losses * weights).sum() / takes_part.sum().clamp(min=1)

    def _split(self, s_emb: Tensor, t_emb: Tensor, labels: Tensor, class_weight: Tensor) -> Tensor:
        s, t = at_least_float32(s_emb), at_least_float32(t_emb.detach())
        basis = torch.linalg.qr(class_weight.detach().to(s.dtype).T).Q
        mean = directions(self.centers.to(s.dtype) @ basis, labels)
        seen = t @ basis
        if not self.keep:
            return norm_and_direction(s @ basis, seen, mean)
        moved = torch.linalg.vector_norm(seen, dim=1, keepdim=True) * mean
        return norm_and_direction(s, t, unit_rows(t + (moved - seen) @ basis.T))

    def sample_losses(self, s_emb: Tensor, t_emb: Tensor, labels: Tensor) -> Tensor:
        return blended_nd_loss(s_emb, t_emb, self.centers, labels, self.own)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, own={self.own}"
