"""Holds distillation losses at a stated share of the task's gradient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.runner import Runner

from kd_det.errors import InvalidInputError
from kd_det.hooks._balance import GradientBalance
from kd_det.hooks._distillation import require_alone, require_distillation, scale_losses
from kd_det.hooks._gradient_norms import GradientNorms, loss_scale
from kd_det.hooks._loss_transforms import Handle, Stage, transform_losses
from kd_det.registry import HOOKS

# At the start of a training gradients change fast: its first iterations are all measured.
FIRST_ITERATIONS = 10
STATE_KEY = "kd_det.loss_balance"


@HOOKS.register_module()
class LossBalanceHook(Hook):
    """Scale each distillation loss so that it pulls at the student's features as asked.

    What a loss weight does to the training depends on the size of the loss, on the features
    and on the number of classes, and changes while the student learns. This hook measures,
    every ``interval`` iterations, the norms of the gradients at the student's shared features

        ``g_task = |d(sum of task losses) / d(features)|``,  ``g_i = |d(term_i) / d(features)|``

    over all levels of the pyramid together, and multiplies each term by ``share_i * g_task /
    g_i``, from running means that are equal on all ranks. Related: GradNorm (arXiv 1711.02257),
    which learns the weights instead of computing them.

    The term's own ``loss_weight`` cancels out, since the term is measured with it.
    :class:`kd_det.LossWeightHook` acts on top and is not balanced away. Scales are in the
    checkpoints; a resumed run goes on with them. Logged as ``scale/<loss>``, and ``share/<loss>``
    for what the last measurement found before scaling.

    Args:
        share: For all terms, or for each by name; terms that are not named are left alone. 0.5:
            the term's gradient is half as long as that of all task losses together.
        interval: Iterations between two measurements; the first ten iterations are all
            measured. A measurement costs one backward pass through the student's heads for
            the task and one for each term, down to the features.
        momentum: Weight of a new measurement in the running means, in (0, 1].
        source: The module of the student whose outputs are the shared features.

    Raises:
        ValueError: For a share that is not positive and finite, a momentum outside (0, 1], or
            an ``interval`` below 1; when training begins, for names that do not exist.
    """

    priority = "NORMAL"

    def __init__(
        self,
        share: float | Mapping[str, float],
        interval: int = 50,
        momentum: float = 0.3,
        source: str = "neck",
    ) -> None:
        if interval < 1:
            raise InvalidInputError(f"LossBalanceHook: expected interval >= 1, found {interval}")
        shares = share if isinstance(share, Mapping) else {"all terms": share}
        GradientBalance(shares, momentum)  # raises before data is read
        self.share = share
        self.interval = interval
        self.momentum = momentum
        self.source = source
        self.balance: GradientBalance | None = None
        self._state: Mapping[str, Any] | None = None
        self._handles: list[Handle | GradientNorms] = []

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Keep the state of an earlier run until it is known whether this one resumes it."""
        self._state = checkpoint.get(STATE_KEY)

    def before_train(self, runner: Runner) -> None:
        """Find losses and features in the model."""
        require_alone(runner, self)
        shares = self.share
        model = require_distillation(
            runner, "LossBalanceHook", shares if isinstance(shares, Mapping) else ()
        )
        if not isinstance(shares, Mapping):
            shares = dict.fromkeys(model.distiller.distill_losses, shares)
        device = next(model.parameters()).device
        balance = GradientBalance(shares, self.momentum, device)
        # A checkpoint that is only loaded (load_from) belongs to another training.
        if self._state is not None and runner.iter > 0:
            try:
                balance.load_state_dict(self._state)
            except ValueError as error:
                raise InvalidInputError(
                    f"LossBalanceHook cannot go on from the checkpoint: {error}; resume with the "
                    "terms that the run began with, or begin anew with load_from"
                ) from error
        self._remove()
        norms = GradientNorms(model, shares, self.source)

        def balance_losses(losses: dict[str, Any]) -> dict[str, Any]:
            if norms.recording:
                norms.recording = False
                self._measure(losses, loss_scale(runner))
            # From the very step that was measured on.
            scale_losses(losses, zip(balance.names, balance.scales))
            return losses

        self._handles = [norms, transform_losses(model, Stage.BALANCE, balance_losses)]
        self.balance, self._norms = balance, norms
        self._scalars = _scalars(balance)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Record in the iterations that are measured."""
        self._norms.recording = runner.iter < FIRST_ITERATIONS or runner.iter % self.interval == 0

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Log scales and shares."""
        runner.message_hub.update_scalars(self._scalars)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Add the running means and scales."""
        if self.balance is not None:
            checkpoint[STATE_KEY] = self.balance.state_dict()

    def after_train(self, runner: Runner) -> None:
        """Leave the model without hooks."""
        self._remove()

    def _remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _measure(self, losses: dict[str, Any], loss_scale: float) -> None:
        assert self.balance is not None
        norms = self._norms.measure(losses, loss_scale)
        # The mean over the ranks that have a norm: one without RoIs says nothing of a term.
        sums = torch.stack([norms, (norms != 0).to(norms)])
        all_reduce(sums)
        self.balance.update(sums[0] / sums[1].clamp(min=1))
        self._scalars = _scalars(self.balance)


def _scalars(balance: GradientBalance) -> dict[str, float]:
    """Scalars to log. Waits for the device, and so is called after a measurement only."""
    scales, shares = balance.scales.tolist(), balance.measured.tolist()
    return {
        **{f"train/scale/{name}": scale for name, scale in zip(balance.names, scales)},
        **{f"train/share/{name}": share for name, share in zip(balance.names, shares)},
    }
