"""Floating-point precision of all losses."""

from __future__ import annotations

import torch
from torch import Tensor

# Types of devices whose tensors cannot be float64.
WITHOUT_FLOAT64 = ("mps",)


def sum_dtype(x: Tensor) -> torch.dtype:
    """float64 to sum in, or float32 where the device of ``x`` has no float64."""
    return torch.float32 if x.device.type in WITHOUT_FLOAT64 else torch.float64


def at_least_float32(x: Tensor) -> Tensor:
    """Convert ``x`` to float32, unless it is float64.

    Half-precision tensors arrive from autocast regions; squares and norms of them overflow
    (float16) or lose the small differences that a distillation loss is about (bfloat16).
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))
