"""Estimate how long a training takes, from a few of its iterations."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.optim import OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop

from kd_det.timing import one_round

# Seconds after which no further iteration is timed.
LIMIT = 10.0


@dataclass(frozen=True)
class Timing:
    """What a training repeats, how often, and the seconds that each took.

    Args:
        iterations: Of the whole training.
        evaluations: Of the whole training.
        val_batches: Of an evaluation.
        load: A batch of training data, in one process.
        step: An iteration on a batch that was loaded, with backward pass and optimizer.
        predict: A batch of validation data, loaded and predicted.
        workers: Processes that load; 0 if the training does it by itself.
    """

    iterations: int
    evaluations: int
    val_batches: int
    load: float
    step: float
    predict: float
    workers: int

    @property
    def iteration(self) -> float:
        """Seconds of an iteration, where workers load while others compute."""
        if self.workers == 0:
            return self.load + self.step
        return max(self.step, self.load / self.workers)

    def seconds(self, begun: float = 0.0) -> float:
        """Of the training, without its first part ``begun``, from 0 to 1."""
        evaluation = self.evaluations * self.val_batches * self.predict
        return (1 - begun) * (self.iterations * self.iteration + evaluation)


def time_training(runner: Any, number: int, workers: int = 0) -> Timing:
    """Time iterations and predictions of a Runner whose parts are built.

    Gradients are computed and the optimizer steps with a learning rate of 0, so that weights stay.

    Args:
        runner: A Runner with loops, loaders and optimizer.
        number: How many of each; their median counts. One more goes before. Fewer where they
            take long.
        workers: Processes that load in the training.
    """
    device = next(runner.model.parameters()).device
    for optimizer in _optimizers(runner.optim_wrapper):
        for group in optimizer.param_groups:
            group["lr"] = 0.0
    train, val = _Batches(runner.train_dataloader), None
    runner.model.train()
    load, step = _medians(
        [train.load, lambda: runner.model.train_step(train.batch, runner.optim_wrapper)],
        number,
        device,
    )
    predict = 0.0
    if runner._val_loop is not None:
        val = _Batches(runner.val_dataloader)
        runner.model.eval()
        with torch.no_grad():
            (predict,) = _medians([lambda: runner.model.val_step(val.load())], number, device)
    return Timing(
        iterations=runner.train_loop.max_iters,
        evaluations=0 if val is None else _evaluations(runner.train_loop),
        val_batches=0 if val is None else len(runner.val_dataloader),
        load=load,
        step=step,
        predict=predict,
        # They share a CPU's cores with the training.
        workers=0 if device.type == "cpu" else workers,
    )


class _Batches:
    """The batches of a loader, again from the first one after the last."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.rest = iter(loader)
        self.batch: Any = None

    def load(self) -> Any:
        self.batch = next(self.rest, None)
        if self.batch is None:
            self.rest = iter(self.loader)
            self.batch = next(self.rest)
        return self.batch


def _medians(calls: Sequence[Callable[[], Any]], number: int, device: torch.device) -> list[float]:
    """The median seconds of calls that are made in turn, without the first of several rounds."""
    rounds = [one_round(calls, device)]
    while len(rounds) <= number and sum(map(sum, rounds)) < LIMIT:
        rounds.append(one_round(calls, device))
    return [statistics.median(times) for times in zip(*(rounds[1:] or rounds))]


def _evaluations(loop: Any) -> int:
    """How often a loop evaluates, without regard to intervals that change on the way."""
    length = loop.max_epochs if isinstance(loop, EpochBasedTrainLoop) else loop.max_iters
    interval = loop.val_interval
    return sum(n % interval == 0 or n == length for n in range(loop.val_begin, length + 1))


def _optimizers(wrapper: Any) -> list[Any]:
    wrappers = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
    return [each.optimizer for each in wrappers]
