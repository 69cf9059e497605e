"""A loss's weight as a function of time; needs nothing but Python."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from kd_det.errors import InvalidInputError


@dataclass(frozen=True)
class WeightSchedule:
    """A factor on a loss's weight; what is set is multiplied.

    All times are in epochs, or in iterations without ``by_epoch``. They say how many are over,
    as in MMEngine's schedulers: ``stop=10`` leaves ten epochs with the loss.

    Args:
        warmup: Linear growth: the n-th epoch (or iteration), counted from 1, has the factor
            ``min(n / warmup, 1)``. That is mdistiller's, of DKD and ReviewKD.
        cosine: ``(begin, end)``; from 1 to 0 along half a cosine.
        steps: At each of these times the factor is multiplied by ``gamma``.
        gamma: See ``steps``.
        stop: From then on the factor is 0.
        by_epoch: Whether times are epochs.
        continuous: Whether epochs are counted in fractions, so that the factor changes from
            iteration to iteration; as published, it is the same throughout an epoch. The last
            iteration of a warm-up epoch has the same factor either way.

    Raises:
        ValueError: For values that describe no schedule.
    """

    warmup: float | None = None
    cosine: Sequence[float] | None = None
    steps: Sequence[float] = ()
    gamma: float = 0.1
    stop: float | None = None
    by_epoch: bool = True
    continuous: bool = False

    def __post_init__(self) -> None:
        if self.warmup is None and self.cosine is None and not self.steps and self.stop is None:
            raise InvalidInputError("expected at least one of warmup, cosine, steps and stop")
        if self.warmup is not None and self.warmup <= 0:
            raise InvalidInputError(f"expected warmup > 0, found {self.warmup}")
        if self.cosine is not None and not (
            len(self.cosine) == 2 and 0 <= self.cosine[0] < self.cosine[1]
        ):
            raise InvalidInputError(
                f"expected cosine=(begin, end) with 0 <= begin < end, found {self.cosine}"
            )
        if not isinstance(self.steps, Sequence):
            raise InvalidInputError(f"expected a list of steps, found {self.steps}")
        if self.continuous and not self.by_epoch:
            raise InvalidInputError("continuous counts fractions of epochs, but by_epoch is False")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> WeightSchedule:
        """A schedule of its options by name; an unknown one is a ``ValueError``."""
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(config) - set(known))
        if unknown:
            raise InvalidInputError(f"expected options among {known}, found {unknown}")
        return cls(**config)

    def time(self, iteration: int, epoch: int, batch: int, batches: int) -> tuple[float, float]:
        """How much is over before a batch, and how much its own epoch or iteration adds.

        Args:
            iteration: Iterations that are over.
            epoch: Epochs that are over; a loop that counts iterations alone stays in epoch 0.
            batch: Number of the batch in that epoch, from 0.
            batches: Batches of an epoch.
        """
        if not self.by_epoch:
            return iteration, 1.0
        if self.continuous:
            return epoch + batch / batches, 1 / batches
        return epoch + batch // batches, 1.0

    def factor(self, over: float, current: float = 1.0) -> float:
        """The factor at a time as :meth:`time` gives it."""
        factor = 1.0
        if self.warmup is not None:
            factor *= min((over + current) / self.warmup, 1.0)
        if self.cosine is not None:
            begin, end = self.cosine
            progress = min(max((over - begin) / (end - begin), 0.0), 1.0)
            factor *= (1 + math.cos(math.pi * progress)) / 2
        factor *= self.gamma ** sum(over >= step for step in self.steps)
        return 0.0 if self.stop is not None and over >= self.stop else factor
