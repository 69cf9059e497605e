"""Norms and means of rows of embeddings, finite for any finite input."""

from __future__ import annotations

import torch
from torch import Tensor


def largest_entry(rows: Tensor) -> Tensor:
    """Largest absolute entry of each row, ``[N, D] -> [N]``."""
    return torch.linalg.vector_norm(rows, ord=torch.inf, dim=1)


def divisor(largest: Tensor) -> Tensor:
    """``[N] -> [N, 1]`` to divide rows by, 1 where ``largest`` is 0.

    Rows whose largest entry is 1 have norms that neither overflow nor vanish.
    """
    return torch.where(largest > 0, largest, 1).unsqueeze(1)


def unit_rows(rows: Tensor) -> Tensor:
    """Rows divided by their norms, ``[N, D] -> [N, D]``.

    A row of zeros stays as it is, with the gradient of a row of norm 1: it has no direction,
    but can be drawn into one.
    """
    largest = largest_entry(rows.detach())
    rows = rows / divisor(largest)
    norm = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / torch.where(largest.unsqueeze(1) > 0, norm, 1)


def mean_over(losses: Tensor, takes_part: Tensor) -> Tensor:
    """Mean of the ``losses`` ``[N]`` of the samples that take part (bool ``[N]``).

    0, still connected to its inputs, where none does.
    """
    return torch.where(takes_part, losses, 0).sum() / takes_part.sum().clamp(min=1)
