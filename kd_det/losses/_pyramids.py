"""Input check of the losses on pyramids."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from kd_det.errors import InvalidInputError


def check_pyramids(loss: str, s_feats: Sequence[Tensor], t_feats: Sequence[Tensor]) -> None:
    """Raise ``ValueError`` unless both sides have the same levels ``[N, C, H, W]``."""
    for side, feats in (("student", s_feats), ("teacher", t_feats)):
        if isinstance(feats, Tensor):
            raise InvalidInputError(
                f"{loss} compares pyramids: expected a sequence of maps of the {side}, found one "
                f"map {list(feats.shape)}; a record without data_idx holds all levels"
            )
    if len(s_feats) != len(t_feats) or len(s_feats) == 0:
        raise InvalidInputError(
            f"{loss} compares two pyramids of the same number of levels (at least one), got "
            f"{len(s_feats)} student levels and {len(t_feats)} teacher levels"
        )
    for level, (s, t) in enumerate(zip(s_feats, t_feats)):
        if s.shape != t.shape or s.dim() != 4:
            raise InvalidInputError(
                f"{loss} level {level}: expected two maps [N, C, H, W] of equal shape, got student "
                f"{list(s.shape)} and teacher {list(t.shape)}"
            )
