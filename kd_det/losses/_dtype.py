"""The one rule for number formats that all losses share."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """``x`` in float32, or in float64 if it is that already.

    Half-precision tensors arrive from autocast regions; squares and norms of them overflow
    (float16) or lose the small differences that a distillation loss is about (bfloat16).
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))
