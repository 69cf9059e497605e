"""Focal losses of `mmcv._ext` (arXiv 1708.02002), in torch; mmcv has them on GPUs only.

Arguments and formulas as in mmcv 2.1.0's `sigmoid_focal_loss_cuda_kernel.cuh` and
`softmax_focal_loss_cuda_kernel.cuh`. `log(1 - p)` is taken as `logsigmoid(-x)`: the kernels'
`log(max(1 - p, FLT_MIN))` jumps to 87 where `p` rounds to 1, for a logit of 17 already.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from kd_det.compat.mmcv.common import compute_dtype


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """`[N, C], [N] -> [N, C]`; a target of C is background; `weight` `[C]` or empty."""
    x = input.to(compute_dtype(input))
    p, hit = x.sigmoid(), _hits(target, x)
    positive = -alpha * (1 - p) ** gamma * logsigmoid(x)
    negative = -(1 - alpha) * p**gamma * logsigmoid(-x)
    output.copy_(torch.where(hit, positive, negative) * _row_weight(weight, target))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Derivative of :func:`sigmoid_focal_loss_forward`, element by element."""
    x = input.to(compute_dtype(input))
    p, hit = x.sigmoid(), _hits(target, x)
    positive = -alpha * (1 - p) ** gamma * (1 - p - gamma * p * logsigmoid(x))
    negative = -(1 - alpha) * p**gamma * (gamma * (1 - p) * logsigmoid(-x) - p)
    grad_input.copy_(torch.where(hit, positive, negative) * _row_weight(weight, target))


def softmax_focal_loss_forward(
    softmax: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """`[N, C]` probabilities, `[N]` -> `[N]`; a negative target is ignored."""
    p = _probability(softmax, target)
    loss = -alpha * (1 - p) ** gamma * p.log() * _row_weight(weight, target)[:, 0]
    output.copy_(torch.where(target >= 0, loss, loss.new_zeros(())))


def softmax_focal_loss_backward(
    softmax: Tensor,
    target: Tensor,
    weight: Tensor,
    buff: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Derivative with respect to the logits under the softmax; `buff` `[N]` is work space."""
    p = _probability(softmax, target)
    # gamma 0 has no such term; 0 * (1 - p)**-1 would be NaN for a sure prediction.
    focusing = gamma * (1 - p) ** (gamma - 1) * p * p.log() if gamma else 0.0
    slope = alpha * (focusing - (1 - p) ** gamma) * _row_weight(weight, target)[:, 0]
    slope = torch.where(target >= 0, slope, slope.new_zeros(()))
    buff.copy_(slope)
    grad_input.copy_(slope[:, None] * (_hits(target, softmax).to(slope.dtype) - softmax))


def _hits(target: Tensor, like: Tensor) -> Tensor:
    """`[N] -> [N, C]`: where the class of the column is the target of the row."""
    return target[:, None] == torch.arange(like.shape[1], device=like.device)


def _probability(softmax: Tensor, target: Tensor) -> Tensor:
    """Probability of each row's target, kept above 0 as in mmcv so that its log is finite."""
    p = softmax.to(compute_dtype(softmax)).gather(1, target.clamp(min=0)[:, None])[:, 0]
    return p.clamp(min=torch.finfo(torch.float32).tiny)


def _row_weight(weight: Tensor, target: Tensor) -> Tensor:
    """Weight of each row's class, `[N, 1]`; 1 for background, where mmcv reads past the end."""
    if not weight.numel():
        return weight.new_ones((len(target), 1), dtype=compute_dtype(weight))
    padded = torch.cat([weight, weight.new_ones(1)]).to(compute_dtype(weight))
    known = (target >= 0) & (target < len(weight))
    return padded[torch.where(known, target, len(weight))][:, None]


FOCAL_OPS = (
    sigmoid_focal_loss_forward,
    sigmoid_focal_loss_backward,
    softmax_focal_loss_forward,
    softmax_focal_loss_backward,
)
