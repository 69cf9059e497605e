"""Batch norm of connectors: plain or synchronised, with or without enough values."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F


def batch_norm(norm: Any, x: Tensor, maybe_empty: bool = False) -> Tensor:
    """Normalise ``x`` ``[N, C, *]`` by ``norm``, by its running statistics if need be.

    In training, fewer than two values of each channel have no statistics of their own: they are
    normalised with the running ones, which stay as they are. A synchronised norm (``sync_bn``)
    takes the values of all ranks together, so that all ranks decide alike: if one of them did not
    run the norm, the others would wait for it for ever.

    Args:
        norm: ``nn.BatchNorm1d`` or ``nn.BatchNorm2d``, or what ``sync_bn`` put in its place.
        x: The values.
        maybe_empty: Whether a rank may have none. If so, a synchronised norm counts them in a
            collective call of its own.
    """
    if norm.training and _values(norm, x, maybe_empty) < 2:
        return F.batch_norm(
            x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
        )
    return norm(x)


def _values(norm: Any, x: Tensor, maybe_empty: bool) -> int:
    """Count the values of each channel; at least so many, for a norm that is synchronised."""
    values = x.numel() // x.shape[1]
    is_plain = isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d))
    if is_plain or not (dist.is_available() and dist.is_initialized()):
        return values
    # torch's own SyncBatchNorm, or mmcv's
    group = getattr(norm, "process_group", None) or getattr(norm, "group", None)
    if not maybe_empty:
        return values * dist.get_world_size(group) if values < 2 else values
    total = torch.tensor(values, device=x.device)
    dist.all_reduce(total, group=group)
    return int(total)
