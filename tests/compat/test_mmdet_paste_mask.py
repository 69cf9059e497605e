"""Masks of boxes outside of the image are empty; those of others are mmdet's own."""

from __future__ import annotations

import torch

PASTE = """
import torch
from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask

masks = torch.rand(1, 1, 28, 28)
for box in ([40.0, 4, 50, 9], [4, 40, 9, 50], [-9, 4, -5, 9], [4, -9, 9, -5]):
    pasted, region = _do_paste_mask(masks, torch.tensor([box]), 20, 30)
    image = torch.zeros(1, 20, 30, dtype=torch.bool)
    image[(torch.tensor([0]), *region)] = pasted >= 0.5
    assert not image.any()
"""
LEFT_OUT = {"mmdet_paste_mask": PASTE}


def test_breaks_without_the_patch(left_out):
    assert "inconsistent with step sign" in left_out["mmdet_paste_mask"]


def test_a_mask_outside_of_the_image_is_empty():
    exec(PASTE, {})


def test_a_mask_partly_inside_is_pasted_as_before():
    from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask

    masks, boxes = torch.rand(1, 1, 28, 28), torch.tensor([[-3.5, 12.0, 8.0, 40.0]])
    part, region = _do_paste_mask(masks, boxes, 20, 30)
    whole, _ = _do_paste_mask(masks, boxes, 20, 30, skip_empty=False)
    assert torch.equal(whole[0][region], part[0]) and whole[0].any()
    _, own = _do_paste_mask.__wrapped__(masks, boxes, 20, 30)
    assert region == own
