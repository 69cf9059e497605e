"""Base of the losses against the teacher's class means."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kd_det.centers import ClassCenters
from kd_det.errors import InvalidInputError, UserError
from kd_det.losses._dtype import at_least_float32, sum_dtype
from kd_det.losses._rows import mean_over, unit_rows
from kd_det.losses.positives import labels_of, rows_at


class CentersNotSetError(UserError, RuntimeError):
    """A loss that needs class centers ran before it was given any."""


def check_shapes(
    who: str, s_emb: Tensor, centers: Tensor, labels: Tensor, t_emb: Tensor | None = None
) -> None:
    """Raise ValueError, in the name of ``who``, unless the shapes fit each other."""
    given = {"s_emb": s_emb, "t_emb": t_emb, "centers": centers, "labels": labels}
    shapes = "got " + ", ".join(f"{k} {list(x.shape)}" for k, x in given.items() if x is not None)
    if s_emb.dim() != 2 or centers.dim() != 2 or labels.dim() not in (1, 2):
        raise InvalidInputError(
            f"{who} needs s_emb [N, D], centers [C, D], labels [N] (or shares [N, C]); {shapes}"
        )
    if t_emb is not None and s_emb.shape != t_emb.shape:
        raise InvalidInputError(
            f"{who} compares student and teacher embeddings of the same samples and size; "
            f"{shapes}. Where only the sizes differ, put a connector on the student's embedding"
        )
    shares_fit = labels.dim() == 1 or labels.shape[1] == len(centers)
    if s_emb.shape[1] != centers.shape[1] or len(labels) != len(s_emb) or not shares_fit:
        raise InvalidInputError(f"{who}: embeddings, centers and labels do not fit; {shapes}")


def directions(centers: Tensor, labels: Tensor) -> Tensor:
    """Compute each sample's unit class mean ``[N, D]``; for shares, the unit of the mixed mean.

    A mean whose norm is too small for all digits of its dtype counts as zero.
    """
    if labels.dim() == 1:
        # Rows of samples, not of classes: it costs the same however many classes there are.
        rows = centers[labels]
        norm = torch.linalg.vector_norm(rows, dim=1, keepdim=True, dtype=sum_dtype(rows))
        limits = torch.finfo(rows.dtype)
        norm = torch.where(norm >= limits.tiny, norm, 1).clamp(max=limits.max)
        return rows.div_(norm.to(rows.dtype))
    # Autocast would compute the matrix product in half precision.
    with torch.autocast(centers.device.type, enabled=False):
        return unit_rows(labels.to(centers.dtype) @ centers)


def as_rows(s_emb: Any, t_emb: Any, labels: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings ``[N, D]`` of both sides and their labels; of dense heads, at the positives.

    Raises:
        ValueError: If some are rows and others maps, or the maps' grids differ.
    """
    are_rows = {
        name: isinstance(x, Tensor)
        for name, x in dict(s_emb=s_emb, t_emb=t_emb, labels=labels).items()
    }
    if all(are_rows.values()):
        return s_emb, t_emb, labels
    if any(are_rows.values()):
        raise InvalidInputError(
            "expected s_emb, t_emb and labels all as tensors, or all as sequences with the maps "
            "and positives of each level; found tensors for "
            f"{', '.join(name for name, is_row in are_rows.items() if is_row)} alone"
        )
    grids = [[[len(x), *x.shape[2:]] for x in side] for side in (s_emb, t_emb)]
    if grids[0] != grids[1]:
        raise InvalidInputError(
            "expected embeddings of student and teacher on the same grids, found [N, H, W] "
            f"{grids[0]} and {grids[1]}"
        )
    return rows_at(s_emb, labels), rows_at(t_emb, labels), labels_of(labels)


class ClassMeanLoss(nn.Module, ABC):
    """Base of the losses that compare a student's embedding with the teacher's class means.

    The value is the mean over the samples whose class has a center. A sample takes no part if
    its class was never seen while the centers were gathered, or if its label lies outside the
    rows of ``centers`` (background, with ``background=False``). Images that Mixup or CutMix mixed
    have shares of classes instead of a label; all of them must have been seen.

    A subclass sets ``title``, its name in messages, and computes :meth:`sample_losses`.

    Args:
        num_classes: Number of foreground classes.
        embed_dim: Size D of the embedding.
        loss_weight: Factor on the returned loss.
        background: Whether class ``num_classes`` is background with a center of its own.

    Raises:
        ValueError: If a size is not positive or ``loss_weight`` is negative.
    """

    title: str
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
            raise InvalidInputError(
                f"{type(self).__name__} needs num_classes >= 1, embed_dim >= 1 and "
                f"loss_weight >= 0, got num_classes={num_classes}, embed_dim={embed_dim}, "
                f"loss_weight={loss_weight}"
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
        """Copy the class means and counts of ``centers``.

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
            raise InvalidInputError(
                f"{type(self).__name__} expected centers of {rows} classes"
                f"{' (the last is background)' if self.background else ''} and embedding size "
                f"{self.embed_dim}, found {centers.num_classes} classes and size "
                f"{centers.embed_dim}"
            )
        if not centers.counts[:rows].any():
            raise InvalidInputError(
                f"{type(self).__name__} was given centers in which no class was ever seen"
            )
        self.centers.copy_(centers.means[:rows])
        self.counts.copy_(centers.counts[:rows])

    def forward(
        self,
        s_emb: Tensor | Sequence[Tensor],
        t_emb: Tensor | Sequence[Tensor],
        labels: Tensor | Sequence[Tensor],
    ) -> Tensor:
        """Scalar loss of a batch.

        Args:
            s_emb: Student embeddings ``[N, D]``; or of a dense head, its maps ``[N, D, H, W]``,
                fine to deep.
            t_emb: Teacher embeddings of the same samples. The pre-pass gathers the centers from
                what is given here, whether or not it enters the value.
            labels: Class of each sample, int64 ``[N]``; or its shares of all classes, float
                ``[N, C]``; or of a dense head, its positives (:mod:`kd_det.losses.positives`),
                which are the samples.

        Raises:
            ValueError: If the shapes do not fit.
            CentersNotSetError: On the first call, if no centers were set.
        """
        s_emb, t_emb, labels = as_rows(s_emb, t_emb, labels)
        check_shapes(self.title, s_emb, self.centers, labels, t_emb)
        self._require_centers()
        takes_part, labels = self.choose(labels)
        losses = self.sample_losses(s_emb, t_emb, labels)
        return self.loss_weight * mean_over(losses, takes_part)

    def choose(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return which samples take part, bool ``[N]``, and labels that are valid for all."""
        if labels.dim() == 2:
            return ~((labels > 0) & (self.counts == 0)).any(dim=1), labels
        known = (labels >= 0) & (labels < len(self.counts))
        takes_part = known & (self.counts[torch.where(known, labels, 0)] > 0)
        # The others are computed against a class that was seen, and then left out.
        return takes_part, torch.where(takes_part, labels, self.counts.argmax())

    def mean_cosine(self, emb: Tensor, labels: Tensor) -> Tensor:
        """Mean cosine of embeddings ``[N, D]`` to their class means, of the samples with a part."""
        takes_part, rows = self.choose(labels)
        emb = at_least_float32(emb)
        cosines = (unit_rows(emb) * directions(self.centers.to(emb.dtype), rows)).sum(dim=1)
        return mean_over(cosines, takes_part)

    @abstractmethod
    def sample_losses(self, s_emb: Tensor, t_emb: Tensor, labels: Tensor) -> Tensor:
        """Loss of each sample ``[N]``; a label is the row of a class that was seen, or shares."""

    def _require_centers(self) -> None:
        # Asked until it was true once: the answer waits for the device.
        if not getattr(self, "_centers_seen", False):
            if not self.has_centers:
                raise CentersNotSetError(
                    f"{type(self).__name__} has no class centers: add "
                    "dict(type='kd_det.ClassCenterHook') to custom_hooks, or call set_centers()"
                )
            self._centers_seen = True

    def extra_repr(self) -> str:
        return (
            f"num_classes={self.num_classes}, embed_dim={self.embed_dim}, "
            f"loss_weight={self.loss_weight}, background={self.background}"
        )
