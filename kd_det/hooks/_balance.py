"""The arithmetic of :class:`kd_det.LossBalanceHook`; needs torch alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kd_det.errors import InvalidInputError

# A scale beyond these says that a term and the task have nothing to do with each other.
SMALLEST, LARGEST = 1e-4, 1e4


class GradientBalance:
    """Scales that hold the gradient norm of each term at a share of the task's.

    Running means of all norms are kept, ``mean <- (1 - momentum) * mean + momentum * norm``,
    corrected for their start at zero as Adam's are, so that the first norm counts in full.
    Everything is on one device, and nothing here waits for it.

    Args:
        shares: For each term, its norm in units of the task's.
        momentum: Weight of a new norm, in (0, 1]; as in MMEngine's EMA and in batch norm.
        device: Where norms are measured.

    Raises:
        ValueError: For a momentum outside (0, 1], or a share that is not positive and finite.
    """

    def __init__(
        self, shares: Mapping[str, float], momentum: float, device: torch.device | str = "cpu"
    ) -> None:
        if not 0 < momentum <= 1:
            raise InvalidInputError(f"expected momentum in (0, 1], found {momentum}")
        for name, share in shares.items():
            if not 0 < share < float("inf"):
                raise InvalidInputError(f"expected a share above 0 for '{name}', found {share}")
        self.names = list(shares)
        self.momentum = momentum
        self.shares = torch.tensor(list(shares.values()), dtype=torch.float32, device=device)
        # Of the task in front, then of the terms in order.
        self._sums = torch.zeros(1 + len(shares), device=device)
        self._weights = torch.zeros(1 + len(shares), device=device)
        self.scales = torch.ones(len(shares), device=device)
        """``[n]``; what to multiply each term with."""
        self.measured = torch.zeros(len(shares), device=device)
        """``[n]``; the last share that was measured, before scaling; 0 before the first."""

    def update(self, norms: Tensor) -> None:
        """Take in norms ``[1 + n]``: of the task, then of each term without its scale.

        A term whose norm (or the task's) is zero or not finite keeps its scale.
        """
        usable = norms.isfinite() & (norms > 0)
        usable = usable & usable[0]
        m = self.momentum
        self._sums = torch.where(usable, (1 - m) * self._sums + m * norms, self._sums)
        self._weights = torch.where(usable, (1 - m) * self._weights + m, self._weights)
        task, terms = (self._sums / self._weights).tensor_split([1])
        scales = (self.shares * task / terms).clamp(SMALLEST, LARGEST)
        self.scales = torch.where(usable[1:], scales, self.scales)
        self.measured = torch.where(usable[1:], norms[1:] / norms[0], self.measured)

    def state_dict(self) -> dict[str, Any]:
        tensors = {name: getattr(self, name).cpu() for name in _STATE}
        return {"names": list(self.names), **tensors}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``.

        Raises:
            ValueError: If it is that of other terms.
        """
        found = list(state["names"])
        if sorted(found) != sorted(self.names):
            raise InvalidInputError(f"expected the terms {self.names}, found {found}")
        order = torch.tensor([found.index(name) for name in self.names])
        with_task = torch.cat([torch.zeros(1, dtype=torch.long), order + 1])
        for name in _STATE:
            kept = state[name][with_task if len(state[name]) > len(order) else order]
            setattr(self, name, kept.to(self.shares.device))


_STATE = ("_sums", "_weights", "scales", "measured")
