"""RoI ops of `mmcv._ext`: RoIAlign by torchvision's kernels, RoIPool in torch.

Arguments as in mmcv 2.1.0's `mmcv/ops/csrc/pytorch/roi_align.cpp` and `roi_pool.cpp`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from kd_det.compat.mmcv.common import compute_dtype, not_provided


def roi_align_forward(
    input: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor, argmax_x: Tensor, **bins: Any
) -> None:
    """`[B, C, H, W], [K, 5] -> [K, C, h, w]`, the mean of bilinear samples in each bin.

    The arithmetic is that of mmcv, bit for bit on a CPU; both come from detectron2's kernel.
    """
    output.copy_(_roi_align(torch.ops.torchvision.roi_align, input, rois, (), **bins))


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    **bins: Any,
) -> None:
    """Gradient of :func:`roi_align_forward` with respect to its feature map."""
    kernel = torch.ops.torchvision._roi_align_backward
    grad_input.copy_(_roi_align(kernel, grad_output, rois, grad_input.shape, **bins))


def _roi_align(
    kernel: Callable[..., Tensor],
    x: Tensor,
    rois: Tensor,
    shape: Sequence[int],
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> Tensor:
    if pool_mode != 1:
        raise not_provided("roi_align with pool_mode='max'")
    dtype = compute_dtype(x)
    size = (aligned_height, aligned_width)
    return kernel(
        x.to(dtype), rois.to(dtype), spatial_scale, *size, *shape, sampling_ratio, aligned
    )


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """`[B, C, H, W], [K, 5] -> [K, C, h, w]`, the largest pixel in each bin.

    Not torchvision's: that one rounds the RoI to whole pixels first, mmcv rounds each bin outwards
    (`roi_pool_cuda_kernel.cuh`). `argmax` gets the flat position of the pixel, -1 for an empty bin
    or RoI, which are 0 in the output. One step per RoI; mmcv itself has this op on GPUs only.
    """
    height, width = input.shape[-2:]
    argmax.fill_(-1)
    output.zero_()
    corners = rois[:, 1:].to(compute_dtype(rois)) * spatial_scale
    corners[:, 2:] += spatial_scale
    rows, row_in = _bins(corners[:, 1], corners[:, 3], pooled_height, height)
    cols, col_in = _bins(corners[:, 0], corners[:, 2], pooled_width, width)
    proper = (corners[:, 2:] > corners[:, :2]).all(1)
    for k in proper.nonzero().flatten().tolist():
        # [ph, mh, pw, mw]: the pixels of every bin, padded to the largest bin of the RoI
        mh, mw = int(row_in[k].sum(1).max()), int(col_in[k].sum(1).max())
        if not mh or not mw:
            continue
        inside = row_in[k][:, :mh, None, None] & col_in[k][None, None, :, :mw]
        at = rows[k][:, :mh, None, None] * width + cols[k][None, None, :, :mw]
        pixels = input[int(rois[k, 0])].flatten(1)[:, at.clamp(0, height * width - 1)]
        pixels = pixels.masked_fill(~inside, float("-inf")).transpose(2, 3).flatten(3)
        best, where = pixels.max(dim=-1)
        at = at.transpose(1, 2).flatten(2).expand(len(pixels), -1, -1, -1)
        found = at.gather(-1, where[..., None]).squeeze(-1)
        filled = best > float("-inf")
        output[k] = torch.where(filled, best, best.new_zeros(()))
        argmax[k] = torch.where(filled, found, -1).to(argmax.dtype)


def _bins(low: Tensor, high: Tensor, parts: int, size: int) -> tuple[Tensor, Tensor]:
    """Cut `[low, high]` of each RoI into bins; the pixels of each, and which of them are real.

    `[K], [K] -> [K, parts, size]` twice.
    """
    step = ((high - low) / parts)[:, None]
    index = torch.arange(parts, device=low.device, dtype=low.dtype)
    start = torch.floor(index * step + low[:, None]).clamp(0, size).long()
    stop = torch.ceil((index + 1) * step + low[:, None]).clamp(0, size).long()
    pixels = start[..., None] + torch.arange(size, device=low.device)
    return pixels, pixels < stop[..., None]


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Send each bin's gradient to the pixel it was taken from."""
    batch, channels, height, width = grad_input.shape
    plane = rois[:, 0].long()[:, None] * channels + torch.arange(channels, device=rois.device)
    where = plane[:, :, None, None] * (height * width) + argmax.long()
    taken = argmax >= 0
    flat = torch.zeros(
        batch * channels * height * width,
        dtype=compute_dtype(grad_output),
        device=grad_output.device,
    )
    flat.index_add_(0, where[taken], grad_output[taken].to(flat.dtype))
    grad_input.copy_(flat.view_as(grad_input))


ROI_OPS = (roi_align_forward, roi_align_backward, roi_pool_forward, roi_pool_backward)
