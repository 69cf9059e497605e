"""What limits a run: images a second, and the share of loader, teacher, student and losses."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from mmengine.dist import get_world_size
from mmengine.hooks import Hook, LoggerHook
from mmengine.runner import Runner

from kd_det.hooks._distillation import unwrap_model
from kd_det.registry import HOOKS
from kd_det.timing import StepTimer


@HOOKS.register_module()
class StepTimeHook(Hook):
    """Add where the time goes to the line that MMEngine's ``LoggerHook`` writes every interval.

    Beside its ``time``, ``data_time`` and ``eta``, the line and all vis backends get, over the
    iterations since the last one:

    - ``images_per_s``: of all processes;
    - ``share_loader``: waiting for the next batch (with what other hooks do between steps);
    - ``share_teacher``, ``share_student``: their forward passes, the latter with its own losses;
    - ``share_distill``: connectors and distillation losses;
    - ``share_update``: the rest, backward pass and optimizer.

    With ``speed.cache_teacher``, ``teacher_cached`` is the share of images found in the cache.
    Shares are of the time of a step in this process. A training without a teacher, or with an
    algorithm of MMRazor's, has the first two. Parts are timed by the host's clock, on a GPU by
    CUDA events that are read when the device has passed them: nothing waits for it.
    """

    priority = "NORMAL"  # before LoggerHook

    def __init__(self) -> None:
        self._timer: StepTimer | None = None
        self._start_interval()

    def _start_interval(self) -> None:
        self._loader = self._total = 0.0
        self._images = 0

    def before_train(self, runner: Runner) -> None:
        """Let the algorithm time its parts."""
        model = unwrap_model(runner)
        if hasattr(model, "timer"):
            self._timer = model.timer = StepTimer(next(model.parameters()).device)

    def before_train_epoch(self, runner: Runner) -> None:
        """Begin to wait for a batch."""
        self._begin = time.perf_counter()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Leave an evaluation within an epoch out."""
        self._begin = time.perf_counter()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Count the time of waiting."""
        self._loader += time.perf_counter() - self._begin

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Count the step; at an interval's end, hand the figures to the logger."""
        now = time.perf_counter()
        self._total += now - self._begin
        self._begin = now
        self._images += _number_of_images(data_batch)
        intervals = [hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)]
        if self.every_n_inner_iters(batch_idx, min(intervals, default=10)) or self.end_of_epoch(
            runner.train_dataloader, batch_idx
        ):
            self._log(runner)
            self._start_interval()

    def _log(self, runner: Runner) -> None:
        seconds = {"loader": self._loader}
        if self._timer is not None:
            parts = self._timer.take()
            seconds.update({name: parts.get(name, 0.0) for name in ("teacher", "student")})
            seconds["distill"] = parts.get("losses", 0.0)
            seconds["update"] = max(0.0, self._total - sum(seconds.values()))
        hub = runner.message_hub
        cache = getattr(getattr(unwrap_model(runner), "fixed_teacher", None), "cache", None)
        if cache is not None:
            hub.update_scalar("train/teacher_cached", cache.take_share())
        hub.update_scalar("train/images_per_s", self._images * get_world_size() / self._total)
        for name, value in seconds.items():
            hub.update_scalar(f"train/share_{name}", value / self._total)


def _number_of_images(batch: Any) -> int:
    """Images of a batch; of several branches, as in semi-supervised training, those of all."""
    inputs = batch.get("inputs", ()) if isinstance(batch, Mapping) else ()
    return sum(map(len, inputs.values())) if isinstance(inputs, Mapping) else len(inputs)
