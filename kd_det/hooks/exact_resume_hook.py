"""Resuming that gives what an uninterrupted training would have given."""

from __future__ import annotations

from typing import Any

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner

from kd_det.hooks._distillation import require_alone
from kd_det.hooks._seeded_data import Endless, NumberedBatches, seeded_loader
from kd_det.registry import HOOKS
from kd_det.seeds import MODEL, Seeds

KEY = "kd_det_random"
VERSION = 1


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Derive all RNG seeds of training from the run's seed and the place in training.

    RNG states need not be kept then: a resumed run draws what it would have drawn, on every rank,
    whatever came between (evaluation, a pre-pass), and batches and their augmentation do not depend
    on the number of workers. On a CPU, a resumed run ends with the same bits as one that was never
    interrupted, also from a checkpoint within an epoch.

    - Before each iteration all generators (Python, NumPy, torch, its GPUs) are seeded from seed,
      rank and iteration.
    - Each training item is made with seeds from seed, rank, epoch, batch and position.
    - A loop that counts iterations goes on at its place in the data without loading what came
      before.
    - A checkpoint that an evaluation followed is evaluated first: checkpoints are saved before it,
      so that nothing tells whether it came to its end, nor whether it was the best one.

    The seed is kept in checkpoints; one without it was made without this hook, and resuming it
    is warned about.
    """

    priority = "VERY_LOW"  # others read the dataset as it was configured

    def before_train(self, runner: Runner) -> None:
        """Give the loop data that can be resumed."""
        require_alone(runner, self)
        loop = runner.train_loop
        loop.dataloader = loader = seeded_loader(runner)
        assert isinstance(loader.batch_sampler, NumberedBatches)
        self._batches = loader.batch_sampler
        if isinstance(loop, IterBasedTrainLoop):
            loop.dataloader_iterator = Endless(loader, runner.iter)
        elif isinstance(loop, EpochBasedTrainLoop):
            self._batches.skip = runner.iter - runner.epoch * len(loader)
        if self._was_evaluated(runner):
            runner.logger.info("The checkpoint is evaluated, as when it was saved")
            runner.val_loop.run()

    def _was_evaluated(self, runner: Runner) -> bool:
        """Whether an evaluation followed the checkpoint that is resumed."""
        loop = runner.train_loop
        if isinstance(loop, IterBasedTrainLoop):
            place, last = runner.iter, runner.max_iters
        elif isinstance(loop, EpochBasedTrainLoop) and not self._batches.skip:
            place, last = runner.epoch, runner.max_epochs
        else:
            return False
        if not place or runner.val_loop is None or place < loop.val_begin:
            return False
        loop._decide_current_val_interval()
        return place % loop.val_interval == 0 or place == last

    def before_train_epoch(self, runner: Runner) -> None:
        """Tell the data which epoch it is."""
        if isinstance(runner.train_loop, EpochBasedTrainLoop):
            self._batches.epoch = runner.epoch

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seed all generators for this iteration."""
        Seeds(MODEL, runner.seed, get_rank(), runner.iter).set()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the seed."""
        checkpoint[KEY] = dict(version=VERSION, seed=runner.seed)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Warn where a run cannot go on as it would have."""
        if runner._resume and KEY not in checkpoint:
            runner.logger.warning(
                "The checkpoint was made without kd_det.ExactResumeHook: training goes on, but "
                "with other random numbers than it would have had"
            )
