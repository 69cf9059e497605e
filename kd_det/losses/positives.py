"""Positions of a dense detector's pyramid that were assigned to an object.

``positives`` is a sequence with an int64 tensor ``[M, 4]`` for each level, fine to deep: the index
of the image, row, column and class of each position. A position that several anchors assign to
objects of different classes is there once for each class.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kd_det.errors import InvalidInputError
from kd_det.losses._dtype import at_least_float32


def rows_at(feats: Sequence[Tensor], positives: Sequence[Tensor]) -> Tensor:
    """Gather the vectors at these positions, ``[M, C]``, level by level, in float32 at least.

    Args:
        feats: Maps ``[N, C, H, W]``, fine to deep.
        positives: Positions on each of the maps.

    Raises:
        ValueError: If levels or positions do not fit the maps.
    """
    check_positives(feats, positives)
    rows = [x.permute(0, 2, 3, 1)[at[:, 0], at[:, 1], at[:, 2]] for x, at in zip(feats, positives)]
    # Autocast would not concatenate float16 on a CPU.
    return torch.cat(list(map(at_least_float32, rows)))


def labels_of(positives: Sequence[Tensor]) -> Tensor:
    """Class of each position, int64 ``[M]``, in the order of :func:`rows_at`."""
    return torch.cat([at[:, 3] for at in positives])


def per_positive(losses: Tensor, positives: Sequence[Tensor] | None) -> Tensor:
    """Sum of the images' losses ``[N]``, divided by the number of positives, 1 at least.

    Without ``positives``, divided by the number of images.
    """
    count = len(losses) if positives is None else sum(map(len, positives))
    return losses.sum() / max(count, 1)


def check_positives(feats: Sequence[Tensor], positives: Sequence[Tensor]) -> None:
    """Raise ``ValueError`` unless there are positions ``[M, 4]`` for each of the maps."""
    found = [list(at.shape) for at in positives]
    if len(feats) != len(positives) or any(len(x) != 2 or x[1] != 4 for x in found):
        raise InvalidInputError(
            f"expected positives [M, 4] (image, row, column, class) for each of {len(feats)} "
            f"levels, found {found}"
        )
    for level, (x, at) in enumerate(zip(feats, positives)):
        size = (x.shape[0], x.shape[2], x.shape[3]) if x.dim() == 4 else ()
        # On a CPU alone: asking a GPU would wait for it, and its own check is enough.
        inside = at.is_cuda or len(at) == 0 or bool((at[:, :3] < at.new_tensor(size)).all())
        if not size or not inside:
            raise InvalidInputError(
                f"level {level}: expected maps [N, C, H, W] on the grid of the positives, found "
                f"{list(x.shape)} and positions up to {at[:, :3].amax(dim=0).tolist()} (image, "
                "row, column)"
            )
