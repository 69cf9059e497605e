"""Let mmdet paste the mask of a box that lies outside of the image.

On a CPU `_do_paste_mask` (mmdet 3.3, `fcn_mask_head.py`) pastes into the region of the boxes alone.
For a box beyond the image the region ends before it begins, and `torch.arange` raises "upper bound
and lower bound inconsistent with step sign". QueryInst, which does not clip its boxes, has such
ones in the evaluation of its first epochs. There is nothing to paste then.
"""

from __future__ import annotations

import functools
from typing import Any

import wrapt
from torch import Tensor


def patch() -> None:
    """Wrap the function when mmdet's module is imported."""
    wrapt.register_post_import_hook(_wrap, "mmdet.models.roi_heads.mask_heads.fcn_mask_head")


def _wrap(module: Any) -> None:
    paste = module._do_paste_mask

    @functools.wraps(paste)
    def paste_inside(
        masks: Tensor, boxes: Tensor, img_h: int, img_w: int, skip_empty: bool = True
    ) -> tuple[Tensor, tuple[slice, ...]]:
        if skip_empty and _lie_outside(boxes, img_h, img_w):
            return masks.new_zeros(len(masks), 0, 0), (slice(0, 0), slice(0, 0))
        found: tuple[Tensor, tuple[slice, ...]] = paste(masks, boxes, img_h, img_w, skip_empty)
        return found

    module._do_paste_mask = paste_inside


def _lie_outside(boxes: Tensor, img_h: int, img_w: int) -> bool:
    """Whether the region of boxes `[N, 4]`, as mmdet computes it, has no pixel of the image."""
    low = (boxes[:, :2].amin(dim=0).floor() - 1).clamp(min=0)
    high = (boxes[:, 2:].amax(dim=0).ceil() + 1).minimum(boxes.new_tensor([img_w, img_h]))
    return bool((high <= low).any())
