"""CARAFE, which upsamples by kernels of its own for each place (arXiv 1905.02188), in torch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from kd_det.compat.mmcv.common import compute_dtype


def carafe_forward(
    features: Tensor,
    masks: Tensor,
    rfeatures: Tensor,
    routput: Tensor,
    rmasks: Tensor,
    output: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Fill `output` `[N, C, s*H, s*W]` from `features` `[N, C, H, W]`.

    `masks` `[N, G*k*k, s*H, s*W]` holds the kernel of each place. `rfeatures`, which the backward
    pass gets, is filled too; mmcv's other buffers stay as they are.
    """
    rfeatures.copy_(features)
    output.copy_(_carafe(features, masks, kernel_size, group_size, scale_factor))


def carafe_backward(
    grad_output: Tensor,
    rfeatures: Tensor,
    masks: Tensor,
    rgrad_output: Tensor,
    rgrad_input_hs: Tensor,
    rgrad_input: Tensor,
    rgrad_masks: Tensor,
    grad_input: Tensor,
    grad_masks: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Gradients of :func:`carafe_forward`: run it again and differentiate."""
    inputs = [tensor.detach().requires_grad_() for tensor in (rfeatures, masks)]
    with torch.enable_grad():
        output = _carafe(inputs[0], inputs[1], kernel_size, group_size, scale_factor)
    grads = torch.autograd.grad(output, inputs, grad_output.to(output.dtype))
    grad_input.copy_(grads[0])
    grad_masks.copy_(grads[1])


def _carafe(features: Tensor, masks: Tensor, kernel: int, groups: int, scale: int) -> Tensor:
    batch, channels, height, width = features.shape
    dtype = compute_dtype(features)
    columns = F.unfold(features.to(dtype), kernel, padding=kernel // 2)
    columns = columns.view(batch, groups, channels // groups, kernel**2, height, width)
    kernels = masks.to(dtype).view(batch, groups, kernel**2, height, scale, width, scale)
    upsampled = torch.einsum("ngckhw,ngkhiwj->ngchiwj", columns, kernels)
    return upsampled.reshape(batch, channels, height * scale, width * scale)


CARAFE_OPS = (carafe_forward, carafe_backward)
