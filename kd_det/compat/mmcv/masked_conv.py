"""Convolution at some places of a map alone, as guided anchoring evaluates, in torch."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def masked_im2col_forward(
    features: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    data_col: Tensor,
    kernel_h: int,
    kernel_w: int,
    pad_h: int,
    pad_w: int,
) -> None:
    """Fill `data_col` `[C*kh*kw, M]` with what the kernel sees at the places `[M]` of a map.

    `features` is `[1, C, H, W]`.
    """
    padded = F.pad(features[0], (pad_w, pad_w, pad_h, pad_h))
    windows = padded.unfold(1, kernel_h, 1).unfold(2, kernel_w, 1)  # a view
    seen = windows[:, mask_h_idx, mask_w_idx]
    data_col.copy_(seen.permute(0, 2, 3, 1).reshape(data_col.shape))


def masked_col2im_forward(
    col: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    output: Tensor,
    height: int,
    width: int,
    channels: int,
) -> None:
    """Write `col` `[C, M]` to the places `[M]` of `output` `[1, C, H, W]`."""
    output[0][:, mask_h_idx, mask_w_idx] = col


MASKED_CONV_OPS = (masked_im2col_forward, masked_col2im_forward)
