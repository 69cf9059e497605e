"""ND loss of KD++: norm and direction of an embedding against the teacher's class mean."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kd_det.centers import ClassCenters
from kd_det.losses._dtype import at_least_float32
from kd_det.registry import MODELS


class CentersNotSetError(RuntimeError):
    """A loss that needs class centers ran before it was given any."""


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
        labels: Class of each sample, int64 ``[N]``, values in ``[0, C)``.

    Returns:
        Loss of each sample ``[N]``, float32 (float64 for float64 input), in ``[0, 2]``.

    Raises:
        ValueError: If the shapes do not fit each other.

    Source: "Improving Knowledge Distillation via Regularizing Feature Norm and Direction",
    arXiv 2305.17007, equation 8.
    """
    _check_shapes(s_emb, t_emb, centers, labels)
    s, t = at_least_float32(s_emb), at_least_float32(t_emb.detach())
    c = at_least_float32(centers.detach())
    direction = F.normalize(c / _scale(_largest(c)), dim=1)[labels]

    largest = torch.maximum(_largest(s.detach()), _largest(t))
    s, t = s / _scale(largest), t / _scale(largest)

    s_norm = torch.linalg.vector_norm(s, dim=1)
    t_norm = torch.linalg.vector_norm(t, dim=1)
    norm = torch.where(s_norm >= t_norm, s_norm, t_norm)
    norm = torch.where(largest > 0, norm, 1)
    return 1 - (s * direction).sum(dim=1) / norm


def _largest(rows: Tensor) -> Tensor:
    return torch.linalg.vector_norm(rows, ord=torch.inf, dim=1)


def _scale(largest: Tensor) -> Tensor:
    return torch.where(largest > 0, largest, 1).unsqueeze(1)


def _check_shapes(s_emb: Tensor, t_emb: Tensor, centers: Tensor, labels: Tensor) -> None:
    shapes = (
        f"got s_emb {list(s_emb.shape)}, t_emb {list(t_emb.shape)}, "
        f"centers {list(centers.shape)}, labels {list(labels.shape)}"
    )
    if s_emb.dim() != 2 or centers.dim() != 2 or labels.dim() != 1:
        raise ValueError(f"ND loss needs s_emb [N, D], centers [C, D], labels [N]; {shapes}")
    if s_emb.shape != t_emb.shape:
        raise ValueError(
            "ND loss compares student and teacher embeddings of the same samples and size; "
            f"{shapes}. Where only the sizes differ, put a connector on the student's embedding"
        )
    if s_emb.shape[1] != centers.shape[1] or len(labels) != len(s_emb):
        raise ValueError(f"ND loss: embeddings, centers and labels do not fit; {shapes}")


@MODELS.register_module()
class NDLoss(nn.Module):
    """Mean of :func:`nd_loss` over the samples whose class has a center.

    A sample takes no part if its class was never seen while the centers were gathered, or if
    its label lies outside the rows of ``centers`` (background, with ``background=False``).

    Args:
        num_classes: Number of foreground classes.
        embed_dim: Size D of the embedding.
        loss_weight: Factor on the returned loss.
        background: Whether class ``num_classes`` is background with a center of its own.

    Raises:
        ValueError: If a size is not positive or ``loss_weight`` is negative.
    """

    centers: Tensor
    counts: Tensor

    def __init__(
        self,
        num_classes: int,
        embed_dim: int,
        loss_weight: float = 1.0,
        background: bool = False,
    ) -> None:
        super().__init__()
        if num_classes < 1 or embed_dim < 1 or loss_weight < 0:
            raise ValueError(
                "NDLoss needs num_classes >= 1, embed_dim >= 1 and loss_weight >= 0, got "
                f"num_classes={num_classes}, embed_dim={embed_dim}, loss_weight={loss_weight}"
            )
        self.num_classes = num_classes
        self.embed_dim = embed_dim
        self.loss_weight = loss_weight
        self.background = background
        rows = num_classes + background
        self.register_buffer("centers", torch.zeros(rows, embed_dim))
        self.register_buffer("counts", torch.zeros(rows, dtype=torch.int64))

    @property
    def has_centers(self) -> bool:
        """Whether any class has a center (on a GPU, asking waits for the device)."""
        return bool(self.counts.any())

    def set_centers(self, centers: ClassCenters) -> None:
        """Take over the class means of ``centers``.

        Args:
            centers: Means ``[C, embed_dim]``, with C the rows of this loss, or one more: a
                background row that a loss with ``background=False`` leaves out.

        Raises:
            ValueError: If class count or embedding size differ, or no class was ever seen.
        """
        rows = len(self.counts)
        fits = centers.num_classes == rows
        fits |= not self.background and centers.num_classes == rows + 1
        if not fits or centers.embed_dim != self.embed_dim:
            raise ValueError(
                f"NDLoss expected centers of {rows} classes"
                f"{' (the last is background)' if self.background else ''} and embedding size "
                f"{self.embed_dim}, found {centers.num_classes} classes and size "
                f"{centers.embed_dim}"
            )
        if not centers.counts[:rows].any():
            raise ValueError("NDLoss was given centers in which no class was ever seen")
        self.centers.copy_(centers.means[:rows])
        self.counts.copy_(centers.counts[:rows])

    def forward(self, s_emb: Tensor, t_emb: Tensor, labels: Tensor) -> Tensor:
        """Scalar loss of embeddings ``[N, D]`` with labels ``[N]``.

        Raises:
            ValueError: If the shapes do not fit.
            CentersNotSetError: On the first call, if no centers were set.
        """
        _check_shapes(s_emb, t_emb, self.centers, labels)
        self._require_centers()
        known = (labels >= 0) & (labels < len(self.counts))
        rows = torch.where(known, labels, 0)
        weight = (known & (self.counts[rows] > 0)).to(torch.float32)
        loss = nd_loss(s_emb, t_emb, self.centers, rows)
        return self.loss_weight * (loss * weight).sum() / weight.sum().clamp(min=1)

    def _require_centers(self) -> None:
        # Asked until it was true once: the answer waits for the device.
        if not getattr(self, "_centers_seen", False):
            if not self.has_centers:
                raise CentersNotSetError(
                    "NDLoss has no class centers: add dict(type='kd_det.ClassCenterHook') to "
                    "custom_hooks, or call set_centers()"
                )
            self._centers_seen = True

    def extra_repr(self) -> str:
        return (
            f"num_classes={self.num_classes}, embed_dim={self.embed_dim}, "
            f"loss_weight={self.loss_weight}, background={self.background}"
        )
