"""ND loss of KD++: norm and direction of an embedding against the teacher's class mean."""

import torch
from torch import Tensor

from kd_det.losses._class_means import ClassMeanLoss, check_shapes, directions
from kd_det.losses._dtype import at_least_float32
from kd_det.losses._rows import divisor, largest_entry
from kd_det.registry import MODELS

TITLE = "ND loss"


def nd_loss(s_emb: Tensor, t_emb: Tensor, centers: Tensor, labels: Tensor) -> Tensor:
    """Per-sample ND loss, ``1 - <s, e_y> / max(|s|, |t|)`` with ``e_y = c_y / |c_y|``.

    While the student's norm is the smaller one, growing along ``e_y`` lowers the loss; once it
    is the larger one, the loss is ``1 - cosine(s, c_y)``. At equal norms the student's norm
    counts as the larger one, as in the published code.

    The loss does not change when ``s_emb`` and ``t_emb`` are scaled together, so each pair of
    rows is first divided by its largest entry, and so is each center: norms neither overflow
    nor vanish. A pair of zero rows, or a zero center, costs 1.

    Args:
        s_emb: Student embeddings ``[N, D]``.
        t_emb: Teacher embeddings ``[N, D]`` of the same samples; no gradient reaches them.
        centers: Class means of the teacher's embeddings ``[C, D]``; no gradient reaches them.
        labels: Class of each sample, int64 ``[N]``, values in ``[0, C)``; or the shares of all
            classes in each sample, float ``[N, C]``, whose means are then mixed likewise.

    Returns:
        Loss of each sample ``[N]``, float32 (float64 for float64 input), in ``[0, 2]``.

    Raises:
        ValueError: If the shapes do not fit each other.

    Source: "Improving Knowledge Distillation via Regularizing Feature Norm and Direction",
    arXiv 2305.17007, equation 8.
    """
    check_shapes(TITLE, s_emb, centers, labels, t_emb)
    s, t = at_least_float32(s_emb), at_least_float32(t_emb.detach())
    direction = directions(at_least_float32(centers.detach()), labels)

    largest = torch.maximum(largest_entry(s.detach()), largest_entry(t))
    s, t = s / divisor(largest), t / divisor(largest)

    s_norm = torch.linalg.vector_norm(s, dim=1)
    t_norm = torch.linalg.vector_norm(t, dim=1)
    norm = torch.where(s_norm >= t_norm, s_norm, t_norm)
    norm = torch.where(largest > 0, norm, 1)
    return 1 - (s * direction).sum(dim=1) / norm


@MODELS.register_module()
class NDLoss(ClassMeanLoss):
    """Mean of :func:`nd_loss` over the samples whose class has a center.

    Arguments, errors and the samples that take no part: :class:`ClassMeanLoss`.
    """

    title = TITLE

    def sample_losses(self, s_emb: Tensor, t_emb: Tensor, labels: Tensor) -> Tensor:
        return nd_loss(s_emb, t_emb, self.centers, labels)
