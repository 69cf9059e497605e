"""The one check of pyramids that losses on them share."""

from collections.abc import Sequence

from torch import Tensor


def check_pyramids(loss: str, s_feats: Sequence[Tensor], t_feats: Sequence[Tensor]) -> None:
    """Raise ``ValueError`` unless both sides have the same levels ``[N, C, H, W]``."""
    if len(s_feats) != len(t_feats) or not s_feats:
        raise ValueError(
            f"{loss} compares two pyramids of the same number of levels (at least one), got "
            f"{len(s_feats)} student levels and {len(t_feats)} teacher levels"
        )
    for level, (s, t) in enumerate(zip(s_feats, t_feats)):
        if s.shape != t.shape or s.dim() != 4:
            raise ValueError(
                f"{loss} level {level}: expected two maps [N, C, H, W] of equal shape, got student "
                f"{list(s.shape)} and teacher {list(t.shape)}"
            )
