"""RoI ops of `mmcv._ext`: RoIAlign by torchvision's kernels, RoIPool in torch.

Arguments as in mmcv 2.1.0's `mmcv/ops/csrc/pytorch/roi_align.cpp` and `roi_pool.cpp`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from kd_det.compat.mmcv.common import compute_dtype, not_provided

# Elements of a 16-bit map that are converted to float32 at once, 128 MiB of them.
CONVERTED_AT_ONCE = 2**25
# RoIs of a product; of 256 channels, 7 x 7 bins and 336 columns 154 MiB.
ROIS_AT_ONCE = 64
# Pixels of bins that RoIPool gathers at once.
GATHERED_AT_ONCE = 2**24


def roi_align_forward(
    input: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor, argmax_x: Tensor, **bins: Any
) -> None:
    """`[B, C, H, W], [K, 5] -> [K, C, h, w]`, the mean of bilinear samples in each bin.

    The arithmetic is that of mmcv, bit for bit on a CPU; both come from detectron2's kernel.
    """
    kernel = torch.ops.torchvision.roi_align
    for part in _channel_runs(input):
        output[:, part] = _roi_align(kernel, input[:, part], rois, (), **bins)


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    **bins: Any,
) -> None:
    """Gradient of :func:`roi_align_forward` with respect to its feature map."""
    kernel: Callable[..., Tensor] = torch.ops.torchvision._roi_align_backward
    if grad_output.is_cuda and torch.are_deterministic_algorithms_enabled():
        kernel = roi_align_backward_by_products
    for part in _channel_runs(grad_input):
        shape = grad_input[:, part].shape
        grad_input[:, part] = _roi_align(kernel, grad_output[:, part], rois, shape, **bins)


def _channel_runs(x: Tensor) -> list[slice]:
    """Cut the channels of a map so that no 16-bit map is in memory as a whole in float32.

    The kernels take float16, but compute positions in it too: at 200 x 336 the result is off by
    7 % in the mean, against 0.02 % by rounding the result alone. Channels do not enter each other.
    """
    channels = x.shape[1]
    if compute_dtype(x) == x.dtype or x.numel() <= CONVERTED_AT_ONCE:
        return [slice(0, channels)]
    run = max(1, channels * CONVERTED_AT_ONCE // x.numel())
    return [slice(first, first + run) for first in range(0, channels, run)]


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


def roi_align_backward_by_products(
    grad: Tensor,
    rois: Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    batch: int,
    channels: int,
    height: int,
    width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """`torchvision._roi_align_backward` by matrix products, which add in a fixed order.

    The kernel adds by atomic operations on a GPU, in any order. A bin's weight of a pixel is that
    of its row times that of its column: `grad_input = rows^T grad columns`, summed over RoIs.
    """
    low_x, low_y, high_x, high_y = (rois[:, 1:] * spatial_scale - (0.5 if aligned else 0)).T
    of_axis = (sampling_ratio, aligned)
    rows = _axis_weights(low_y, high_y, pooled_height, height, *of_axis)
    columns = _axis_weights(low_x, high_x, pooled_width, width, *of_axis)
    found = grad.new_zeros(batch, channels, height, width)
    for first in range(0, len(rois), ROIS_AT_ONCE):
        part = slice(first, first + ROIS_AT_ONCE)
        spread = grad[part] @ columns[part, None]
        for image in range(batch):
            of_image = (rois[part, 0] == image).to(grad.dtype)[:, None, None]
            found[image] += torch.einsum("khy,kchx->cyx", rows[part] * of_image, spread)
    return found


def _axis_weights(
    low: Tensor, high: Tensor, bins: int, size: int, sampling_ratio: int, aligned: bool
) -> Tensor:
    """Weight of each pixel of an axis in each bin of each RoI: `[K], [K] -> [K, bins, size]`."""
    length = high - low if aligned else (high - low).clamp(min=1)
    step = (length / bins)[:, None, None]
    samples = torch.ceil(step) if sampling_ratio <= 0 else torch.full_like(step, sampling_ratio)
    start = low[:, None, None] + torch.arange(bins, device=low.device)[:, None] * step
    pixels = torch.arange(size, device=low.device, dtype=low.dtype)
    weights = low.new_zeros(len(low), bins, size)
    for i in range(int(samples.max()) if len(low) else 0):
        at = start + (i + 0.5) * step / samples
        real = (i < samples) & (at >= -1) & (at <= size)
        near = (1 - (at.clamp(0, size - 1) - pixels).abs()).clamp(min=0)
        weights += torch.where(real, near / samples, near.new_zeros(()))
    return weights


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
    or RoI, which are 0 in the output. mmcv itself has this op on GPUs only.
    """
    height, width = input.shape[-2:]
    argmax.fill_(-1)
    output.zero_()
    if not len(rois):
        return
    corners = rois[:, 1:].to(compute_dtype(rois)) * spatial_scale
    corners[:, 2:] += spatial_scale
    rows, row_in = _bins(corners[:, 1], corners[:, 3], pooled_height, height)
    cols, col_in = _bins(corners[:, 0], corners[:, 2], pooled_width, width)
    row_in &= (corners[:, 2:] > corners[:, :2]).all(1)[:, None, None]
    # Pixels of the largest bin of each RoI; RoIs of like size are gathered together.
    tallest, widest = row_in.sum(2).amax(1), col_in.sum(2).amax(1)
    order = (tallest * widest).argsort()
    sizes = torch.stack([tallest, widest], 1)[order].tolist()  # the only wait for a device
    bins = input.shape[1] * pooled_height * pooled_width
    flat = input.flatten(2)
    for first, last in _alike(sizes, GATHERED_AT_ONCE // bins):
        k = order[first:last]
        mh, mw = (max(side) for side in zip(*sizes[first:last]))
        if not mh or not mw:
            continue
        # [k, ph, mh, pw, mw]: the pixels of every bin, padded to the largest bin
        inside = row_in[k][:, :, :mh, None, None] & col_in[k][:, None, None, :, :mw]
        at = rows[k][:, :, :mh, None, None] * width + cols[k][:, None, None, :, :mw]
        inside, at = (x.transpose(2, 3).flatten(3) for x in (inside, at))
        index = at.clamp(0, height * width - 1)
        pixels = flat[rois[k, 0].long()[:, None, None, None], :, index].movedim(-1, 1)
        pixels = pixels.masked_fill(~inside[:, None], float("-inf"))
        best, where = pixels.max(dim=-1)
        found = at[:, None].expand(pixels.shape).gather(-1, where[..., None]).squeeze(-1)
        filled = best > float("-inf")
        output[k] = torch.where(filled, best, best.new_zeros(()))
        argmax[k] = torch.where(filled, found, -1).to(argmax.dtype)


def _alike(sizes: Sequence[Sequence[int]], pixels: int) -> Iterator[tuple[int, int]]:
    """Cut RoIs of rising bin sizes `[h, w]` into runs of at most so many pixels a bin in all."""
    first = tall = wide = 0
    for i, (height, width) in enumerate(sizes):
        tall, wide = max(tall, height), max(wide, width)
        if i > first and (i + 1 - first) * tall * wide > pixels:
            yield first, i
            first, tall, wide = i, height, width
    yield first, len(sizes)


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
