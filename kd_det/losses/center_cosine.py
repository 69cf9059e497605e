"""Cosine distance of an embedding to the teacher's class mean: the direction part of ND loss."""

from __future__ import annotations

from torch import Tensor

from kd_det.losses._dtype import at_least_float32
from kd_det.losses._rows import unit_rows
from kd_det.losses.class_means import ClassMeanLoss, check_shapes, directions

TITLE = "center cosine loss"


def center_cosine_loss(s_emb: Tensor, centers: Tensor, labels: Tensor) -> Tensor:
    """Per-sample ``1 - cosine(s, c_y)``.

    Equals the ND loss wherever the student's norm is the larger one. The norms do not enter: a
    student's embedding is turned, never lengthened. A zero row or a zero center costs 1.

    Args:
        s_emb: Student embeddings ``[N, D]``.
        centers: Class means of the teacher's embeddings ``[C, D]``; no gradient reaches them.
        labels: Class of each sample, int64 ``[N]``, values in ``[0, C)``; or the shares of all
            classes in each sample, float ``[N, C]``, whose means are then mixed likewise.

    Returns:
        Loss of each sample ``[N]``, float32 (float64 for float64 input), in ``[0, 2]``.

    Raises:
        ValueError: If the shapes do not fit each other.

    Source: "Improving Knowledge Distillation via Regularizing Feature Norm and Direction",
    arXiv 2305.17007, the study of feature directions.
    """
    check_shapes(TITLE, s_emb, centers, labels)
    direction = directions(at_least_float32(centers.detach()), labels)
    return 1 - (unit_rows(at_least_float32(s_emb)) * direction).sum(dim=1)


class CenterCosineLoss(ClassMeanLoss):
    """Mean of :func:`center_cosine_loss` over the samples whose class has a center.

    Arguments, errors and the samples that take no part: :class:`ClassMeanLoss`. ``t_emb`` is
    what the centers are gathered from; the value does not depend on it.
    """

    title = TITLE

    def sample_losses(self, s_emb: Tensor, t_emb: Tensor, labels: Tensor) -> Tensor:
        return center_cosine_loss(s_emb, self.centers, labels)
