"""Data without a single batch is refused before training."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import Runner

from kd_det.errors import InvalidInputError


class DataCheck(Hook):
    """Looks whether the loaders have batches; a loop over none of them ends as if all was done."""

    priority = "VERY_HIGH"

    def before_train(self, runner: Runner) -> None:
        """Raise ``InvalidInputError`` for a loader without a batch."""
        loaders = {"train": runner.train_loop.dataloader}
        if runner.val_loop is not None:
            loaders["val"] = runner.val_loop.dataloader
        for part, loader in loaders.items():
            if len(loader) == 0:
                raise InvalidInputError(
                    f"{part}_dataloader has no batch: {len(loader.dataset)} images in batches of "
                    f"{runner.cfg[f'{part}_dataloader'].get('batch_size')}. With drop_last, an "
                    "incomplete batch is left out; filter_cfg leaves out images without objects"
                )
