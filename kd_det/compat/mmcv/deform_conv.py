"""Deformable convolutions of `mmcv._ext` on torchvision's kernel.

Tensors are in the order of mmcv 2.1.0's `mmcv/ops/csrc/pytorch/deform_conv.cpp` and
`modulated_deform_conv.cpp`; the geometry comes by name. Both libraries order the offsets
`y0, x0, y1, x1, ...` and treat samples outside the map as 0. mmcv's work buffers (`columns`,
`ones`) and its `im2col_step`, which only bounds the memory of its own kernel, are not used.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kd_det.compat.mmcv.common import compute_dtype, not_provided

# Stride, padding, dilation (of rows, of columns), both numbers of groups: torchvision's order.
_GEOMETRY = ("dH", "dW", "padH", "padW", "dilationH", "dilationW", "group", "deformable_group")
_GEOMETRY_V2 = (
    *("stride_h", "stride_w", "pad_h", "pad_w", "dilation_h", "dilation_w"),
    *("group", "deformable_group"),
)


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    **geometry: Any,
) -> None:
    """Deformable convolution v1 (arXiv 1703.06211)."""
    output.copy_(_forward(input, weight, offset, None, None, geometry))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradInput: Tensor,
    gradOffset: Tensor,
    weight: Tensor,
    columns: Tensor,
    **geometry: Any,
) -> None:
    """Gradients with respect to the map and to the offsets."""
    grads = _backward(gradOutput, input, weight, offset, None, None, geometry)
    gradInput.copy_(grads[0])
    gradOffset.copy_(grads[2])


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradWeight: Tensor,
    columns: Tensor,
    ones: Tensor,
    scale: float,
    **geometry: Any,
) -> None:
    """Gradient with respect to the weight.

    torchvision has one kernel for all gradients, so training runs it twice; the shape of the
    weight is that of its gradient, and its values do not enter here.
    """
    grads = _backward(gradOutput, input, gradWeight, offset, None, None, geometry)
    gradWeight.add_(grads[1], alpha=scale)


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    with_bias: bool,
    **geometry: Any,
) -> None:
    """Deformable convolution v2 (arXiv 1811.11168).

    Raises:
        MissingOpError: For offsets of another size than the output's, as DyHead has: mmcv's kernel
            reads them as if they were of that size, and torchvision's refuses them.
    """
    if offset.shape[-2:] != output.shape[-2:]:
        raise not_provided("modulated_deform_conv_forward with offsets of another size")
    output.copy_(_forward(input, weight, offset, mask, bias if with_bias else None, geometry))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    with_bias: bool,
    **geometry: Any,
) -> None:
    """All gradients of :func:`modulated_deform_conv_forward`."""
    used_bias = bias if with_bias else None
    grads = _backward(grad_output, input, weight, offset, mask, used_bias, geometry)
    targets = (grad_input, grad_weight, grad_offset, grad_mask)
    for target, grad in zip(targets, grads):
        target.copy_(grad)
    if with_bias:
        grad_bias.copy_(grads[4])


def _forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    geometry: dict[str, Any],
) -> Tensor:
    arguments = _arguments(input, weight, offset, mask, bias, geometry)
    output = torch.ops.torchvision.deform_conv2d(*arguments)
    if offset.is_cuda:
        return output
    lost = offset.isnan().flatten(1).any(dim=1)
    return output.masked_fill(lost.view(-1, 1, 1, 1), float("nan"))


def _backward(grad: Tensor, input: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    """Gradients of input, weight, offset, mask and bias, in this order."""
    grad = grad.to(compute_dtype(input)).contiguous()
    return torch.ops.torchvision._deform_conv2d_backward(grad, *_arguments(input, *rest))


def _arguments(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    geometry: dict[str, Any],
) -> list[Any]:
    """In torchvision's order, tensors in one type; it wants a mask and a bias in any case."""
    dtype = compute_dtype(input)
    if bias is None:
        bias = input.new_zeros(weight.shape[0])
    placeholder = input.new_zeros((len(input), 1)) if mask is None else mask
    if not offset.is_cuda:
        # At a place that is NaN the kernel reads outside of the map, and the process dies.
        offset = offset.masked_fill(offset.isnan(), 0)
    tensors = (input, weight, offset, placeholder, bias)
    names = _GEOMETRY if mask is None else _GEOMETRY_V2
    return [
        *(tensor.to(dtype).contiguous() for tensor in tensors),
        *(geometry[name] for name in names),
        mask is not None,
    ]


DEFORM_OPS = (
    deform_conv_forward,
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    modulated_deform_conv_forward,
    modulated_deform_conv_backward,
)
