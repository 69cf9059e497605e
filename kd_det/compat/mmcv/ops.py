"""The ops of `mmcv._ext` that torchvision or a few lines of torch provide.

Every function has the name and arguments of its counterpart in mmcv 2.1.0 (`mmcv/ops/csrc`), and
like it writes into the tensors it is handed. So mmcv's own autograd functions work unchanged, and
models call what they would call anyway. Tensors may be on any device that torchvision supports.

float16 and bfloat16 are computed in float32 and rounded once at the end: torchvision's CPU kernels
lack them in part, and mmcv's autograd functions hand over what autocast left in such types.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torchvision  # also registers torch.ops.torchvision
from torch import Tensor

from kd_det.compat.mmcv.carafe import CARAFE_OPS
from kd_det.compat.mmcv.common import compute_dtype
from kd_det.compat.mmcv.deform_conv import DEFORM_OPS
from kd_det.compat.mmcv.focal_loss import FOCAL_OPS
from kd_det.compat.mmcv.masked_conv import MASKED_CONV_OPS
from kd_det.compat.mmcv.roi import ROI_OPS


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Greedy suppression where IoU > threshold; `[N, 4], [N] -> [K]` kept, best score first.

    `offset` 1 counts widths as `x2 - x1 + 1`: the same as moving the far corner by one.
    """
    dtype = compute_dtype(boxes)
    boxes = boxes.to(dtype)
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    scores = scores.to(dtype)
    # torchvision's sort is stable, mmcv's is not: boxes of equal scores come in another order.
    order = scores.sort(descending=True).indices
    return order[torch.ops.torchvision.nms(boxes[order], scores[order], iou_threshold)]


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft-NMS (arXiv 1704.04503): lower the scores of overlapping boxes step by step.

    `method` 0 drops, 1 multiplies by `1 - iou`, 2 by `exp(-iou**2 / sigma)`. Boxes whose lowered
    score falls below `min_score` are discarded; the best of all is never. Fills the rows of `dets`
    `[N, 5]` and returns as many indices. One step per kept box, each over all that remain.
    """
    corners, scores = boxes.to(compute_dtype(boxes)), scores.to(compute_dtype(boxes)).clone()
    areas = (corners[:, 2:] - corners[:, :2] + offset).prod(1)
    alive = torch.arange(len(boxes), device=boxes.device)
    kept: list[Tensor] = []
    while len(alive):
        best = alive[scores[alive].argmax()]
        dets[len(kept), :4] = boxes[best]
        dets[len(kept), 4] = scores[best]
        kept.append(best)
        alive = alive[alive != best]
        low = torch.maximum(corners[alive, :2], corners[best, :2])
        high = torch.minimum(corners[alive, 2:], corners[best, 2:])
        inter = (high - low + offset).clamp(min=0).prod(1)
        iou = inter / (areas[alive] + areas[best] - inter)
        if method == 2:
            scores[alive] *= torch.exp(-(iou**2) / sigma)
        else:
            lowered = 1 - iou if method == 1 else torch.zeros_like(iou)
            scores[alive] *= torch.where(iou >= iou_threshold, lowered, torch.ones_like(iou))
        alive = alive[scores[alive] >= min_score]
    return torch.stack(kept) if kept else alive


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Groups of `dets` `[N, 5]` (boxes, score): a kept box and those that it suppresses.

    A group, like the list of them, is in the order of falling scores.
    """
    overlaps = torchvision.ops.box_iou(dets[:, :4], dets[:, :4]) >= iou_threshold
    remaining = dets[:, 4].argsort(descending=True, stable=True)
    groups = []
    while len(remaining):
        suppressed = overlaps[remaining[0], remaining]
        suppressed[0] = True  # a box of no area overlaps nothing, not even itself
        groups.append(remaining[suppressed].tolist())
        remaining = remaining[~suppressed]
    return groups


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Multi-scale deformable attention by mmcv's own torch code.

    mmcv uses that code by itself on a CPU and calls this only for tensors on a GPU.
    """
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    return multi_scale_deformable_attn_pytorch(
        value, value_spatial_shapes, sampling_locations, attention_weights
    )


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Gradients of :func:`ms_deform_attn_forward`: run it again and differentiate."""
    inputs = [t.detach().requires_grad_() for t in (value, sampling_locations, attention_weights)]
    shapes, starts = value_spatial_shapes, value_level_start_index
    with torch.enable_grad():
        output = ms_deform_attn_forward(
            inputs[0], shapes, starts, inputs[1], inputs[2], im2col_step
        )
    grads = torch.autograd.grad(output, inputs, grad_output)
    for target, grad in zip((grad_value, grad_sampling_loc, grad_attn_weight), grads):
        target.copy_(grad)


def get_compiler_version() -> str:
    """Shown by `collect_env` in every training log."""
    return "not compiled: ops of torchvision by kd_det"


def get_compiling_cuda_version() -> str:
    """Shown by `collect_env` in every training log."""
    return "not compiled: ops of torchvision by kd_det"


OPS: dict[str, Callable[..., Any]] = {
    op.__name__: op
    for op in (
        nms,
        softnms,
        nms_match,
        ms_deform_attn_forward,
        ms_deform_attn_backward,
        get_compiler_version,
        get_compiling_cuda_version,
        *ROI_OPS,
        *DEFORM_OPS,
        *FOCAL_OPS,
        *CARAFE_OPS,
        *MASKED_CONV_OPS,
    )
}
