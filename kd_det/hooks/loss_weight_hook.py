"""Weights of distillation losses that change while training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from kd_det.errors import InvalidInputError
from kd_det.hooks._distillation import require_distillation, scale_losses
from kd_det.hooks._loss_transforms import Handle, Stage, transform_losses
from kd_det.hooks.schedule import WeightSchedule
from kd_det.registry import HOOKS


@HOOKS.register_module()
class LossWeightHook(Hook):
    """Multiply distillation losses by factors that follow the epoch or the iteration.

    Any loss of the distiller can be named; its own weight stays as it is. A factor depends on the
    time alone, so a resumed run goes on with the right one. Logged as ``weight/<loss>``. A loss
    whose factor is 0 is still computed, and its graph stays connected for distributed training.

    .. code-block:: python

        dict(
            type="kd_det.LossWeightHook",
            schedules=dict(
                loss_kd=dict(warmup=20),  # epochs
                loss_review=dict(warmup=1000, cosine=(90000, 180000), by_epoch=False),
                loss_nd=dict(steps=[150, 180, 210], gamma=0.1, stop=230),
            ),
        )

    Args:
        schedules: For each loss by name, the options of :class:`WeightSchedule`: ``warmup``,
            ``cosine``, ``steps`` and ``gamma``, ``stop``; ``by_epoch``, ``continuous``.

    Raises:
        ValueError: For an option that does not exist or describes nothing; when training
            begins, for a loss that does not exist or has a schedule in another such hook.
    """

    priority = "NORMAL"

    def __init__(self, schedules: Mapping[str, Mapping[str, Any]]) -> None:
        if not schedules:
            raise InvalidInputError("LossWeightHook: expected a schedule for at least one loss")
        self.schedules: dict[str, WeightSchedule] = {}
        for name, config in schedules.items():
            try:
                self.schedules[name] = WeightSchedule.from_config(config)
            except (TypeError, ValueError) as error:
                raise InvalidInputError(f"LossWeightHook: schedule of '{name}': {error}") from error
        self._factors = dict.fromkeys(self.schedules, 1.0)
        self._handle: Handle | None = None

    def before_train(self, runner: Runner) -> None:
        """Find the losses, and let the model's losses be multiplied."""
        model = require_distillation(runner, "LossWeightHook", self.schedules)
        for hook in runner.hooks:
            if isinstance(hook, LossWeightHook) and hook is not self:
                twice = sorted(self.schedules.keys() & hook.schedules)
                if twice:
                    raise InvalidInputError(f"two LossWeightHooks have a schedule of {twice}")
        self._remove()
        self._handle = transform_losses(model, Stage.WEIGHT, self._weigh)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Set the factors of this iteration, and log them."""
        batches = len(runner.train_dataloader)
        # Not batch_idx, which begins anew where a run is resumed within an epoch.
        batch = runner.iter - runner.epoch * batches
        for name, schedule in self.schedules.items():
            time = schedule.time(runner.iter, runner.epoch, batch, batches)
            self._factors[name] = schedule.factor(*time)
            runner.message_hub.update_scalar(f"train/weight/{name}", self._factors[name])

    def after_train(self, runner: Runner) -> None:
        """Leave the model without a hook."""
        self._remove()

    def _weigh(self, losses: dict[str, Any]) -> dict[str, Any]:
        scale_losses(losses, self._factors.items())
        return losses

    def _remove(self) -> None:
        if self._handle is not None:
            self._handle.remove()
            self._handle = None
