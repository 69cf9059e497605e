"""Floating-point precision of all losses."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Convert ``x`` to float32, unless it is float64.

    Half-precision tensors arrive from autocast regions; squares and norms of them overflow
    (float16) or lose the small differences that a distillation loss is about (bfloat16).
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))
