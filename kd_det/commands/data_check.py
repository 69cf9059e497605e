"""Refuse data without a single batch before training."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import Runner

from kd_det.pairing.dry_run import require_batches


class DataCheck(Hook):
    """Checks that the loaders have batches; a loop over none of them ends as if all was done."""

    priority = "VERY_HIGH"

    def before_train(self, runner: Runner) -> None:
        """Raise ``InvalidInputError`` for a loader without a batch."""
        require_batches(runner.train_loop.dataloader, "train")
        if runner.val_loop is not None:
            require_batches(runner.val_loop.dataloader, "val")
