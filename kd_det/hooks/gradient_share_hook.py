"""Measures how strongly each distillation loss pulls at the student's features."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from kd_det.algorithms.wiring import WiringError
from kd_det.errors import InvalidInputError
from kd_det.hooks._distillation import require_distillation
from kd_det.hooks._gradient_norms import GradientNorms, loss_scale
from kd_det.hooks._loss_transforms import Handle, Stage, transform_losses
from kd_det.registry import HOOKS


@HOOKS.register_module()
class GradientShareHook(Hook):
    """Log the gradient of each distillation loss at the student's neck, in units of the task's.

    The size of a loss says little of what it does: a loss of 0.01 may move the student more than
    its task of 2. Logged as ``gradient/<loss>``: the norm ``|d(loss) / d(features)| / |d(sum of
    task losses) / d(features)|`` over all levels of the pyramid together, of losses as they are
    summed up: with weights, after :class:`kd_det.LossBalanceHook` and
    :class:`kd_det.LossWeightHook`. ``kd-det doctor`` reads it.

    Nothing of the training changes: no gradient of a parameter is touched, and no random number
    drawn. ``kd-det train`` and ``distill`` add it to each distillation. Where it cannot measure it
    says so once, and the training goes on.

    Args:
        interval: Iterations between two measurements, of which the first iteration is one. Each
            costs a backward pass through the student's heads for the task and for each loss.
        source: The module of the student whose outputs are the features.

    Raises:
        ValueError: For an ``interval`` below 1; when training begins, for a model without a
            distiller.
    """

    priority = "NORMAL"

    def __init__(self, interval: int = 100, source: str = "neck") -> None:
        if interval < 1:
            raise InvalidInputError(f"GradientShareHook: expected interval >= 1, found {interval}")
        self.interval = interval
        self.source = source
        self._measures = False
        self._scalars: dict[str, float] = {}
        self._handles: list[Handle | GradientNorms] = []

    def before_train(self, runner: Runner) -> None:
        """Find losses and features in the model."""
        model = require_distillation(runner, "GradientShareHook")
        names = list(model.distiller.distill_losses)
        self._stop()
        try:
            self._norms = norms = GradientNorms(model, names, self.source)
        except WiringError as error:  # no neck
            runner.logger.info(f"gradients of losses are not measured: {error}")
            return

        def measure(losses: dict[str, Any]) -> dict[str, Any]:
            if norms.recording:
                norms.recording = False
                try:
                    task, *terms = norms.measure(losses, loss_scale(runner)).tolist()
                # Out of memory, or checkpointing by which a part has no gradient alone.
                except (InvalidInputError, RuntimeError) as error:
                    runner.logger.warning(f"gradients of losses are not measured any more: {error}")
                    self._measures, self._scalars = False, {}
                    return losses
                if 0 < task < float("inf"):
                    self._scalars = {
                        f"train/gradient/{name}": norm / task for name, norm in zip(names, terms)
                    }
            return losses

        self._handles = [norms, transform_losses(model, Stage.CHECK, measure)]
        self._measures = True

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Record in the iterations that are measured."""
        if self._measures:
            self._norms.recording = runner.iter % self.interval == 0

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Log what was measured last."""
        runner.message_hub.update_scalars(self._scalars)

    def after_train(self, runner: Runner) -> None:
        """Leave the model without hooks."""
        self._stop()

    def _stop(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._scalars, self._measures = [], {}, False
