"""Training data whose RNG seeds depend on the run's seed and the place in training alone."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_rank
from mmengine.runner import IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader
from wrapt import ObjectProxy

from kd_det.seeds import DATA, MODEL, Seeds, seeded, seeded_cpu


class SeededIndex(int):
    """Index of an item, with the place in training where it is used; travels to workers."""

    where: tuple[int, ...]

    @classmethod
    def at(cls, index: int, *where: int) -> SeededIndex:
        """Make an index that is used at the place ``where``."""
        located = cls(index)
        located.where = (DATA, *where)
        return located


class SeededDataset(ObjectProxy):
    """A dataset whose transforms draw the same random numbers for an item in any process.

    Everything else goes to the dataset inside, as from hooks that change its pipeline.
    """

    def __getitem__(self, index: int) -> Any:
        if not isinstance(index, SeededIndex):
            return self.__wrapped__[index]
        with seeded_cpu(Seeds(*index.where)):
            return self.__wrapped__[int(index)]

    def __reduce_ex__(self, protocol: Any) -> tuple[type, tuple]:  # on the way to a worker
        return SeededDataset, (self.__wrapped__,)

    def __deepcopy__(self, memo: dict) -> SeededDataset:
        return SeededDataset(copy.deepcopy(self.__wrapped__, memo))


class NumberedBatches:
    """The batches of a batch sampler, each index with its place in training.

    Args:
        batches: The batch sampler.
        seed: Of the run.
    """

    def __init__(self, batches: Any, seed: int) -> None:
        self.batches = batches
        self.sampler = batches.sampler  # where MMEngine's hooks set its epoch
        self.seed = seed
        self.epoch = 0
        self.skip = 0  # of the next epoch, batches that an interrupted run was given

    def __iter__(self) -> Iterator[list[SeededIndex]]:
        skip, self.skip = self.skip, 0
        for number, batch in enumerate(self.batches):
            if number >= skip:
                yield self._located(batch, number)

    def _located(self, batch: Sequence[int], number: int) -> list[SeededIndex]:
        place = (self.seed, get_rank(), self.epoch, number)
        return [SeededIndex.at(index, *place, i) for i, index in enumerate(batch)]

    def __len__(self) -> int:
        return len(self.batches)


def seeded_loader(runner: Runner) -> DataLoader:
    """Load the runner's training data from its beginning, with RNG seeds of the runner's seed."""
    loader = runner.train_dataloader
    cfg = runner.cfg.get("train_dataloader")
    dataset: Any = SeededDataset(loader.dataset)
    if isinstance(cfg, dict):
        # Samplers may have begun already, for the workers of the loop's own loader.
        cfg = copy.deepcopy(cfg)
        cfg["dataset"] = dataset
        loader = runner.build_dataloader(cfg, seed=runner.seed)
    return copy_loader(
        loader,
        dataset=dataset,
        batch_sampler=NumberedBatches(loader.batch_sampler, runner.seed),
        persistent_workers=loader.persistent_workers,
        # Starting workers would otherwise take a number from the training's RNG.
        generator=torch.Generator().manual_seed(runner.seed),
    )


def copy_loader(loader: DataLoader, **options: Any) -> DataLoader:
    """Make a loader with workers and collation of ``loader``, and ``options`` of its own."""
    kept = ("num_workers", "collate_fn", "pin_memory", "timeout", "worker_init_fn",
            "multiprocessing_context", "prefetch_factor")  # fmt: skip
    return DataLoader(**{name: getattr(loader, name) for name in kept}, **options)


def seeded_by_rank() -> AbstractContextManager[None]:
    """Seed all generators by rank, and restore their states at the end."""
    return seeded(Seeds(MODEL, get_rank()))


class Endless(Iterator[Any]):
    """Batches for a loop that counts iterations, from number ``start`` on.

    MMEngine's loop first asks for as many batches as a resumed run had; those are empty, so that
    nothing is loaded for them. Its older loops do not ask, and onedl-mmengine's asks to skip them.
    """

    def __init__(self, loader: DataLoader, start: int) -> None:
        self._batches = self._run(loader, start)

    def __next__(self) -> Any:
        return next(self._batches)

    def skip_iter(self, num_iters: int) -> None:
        """Skip nothing: the first batch is the one after those of the run before."""

    @staticmethod
    def _run(loader: DataLoader, start: int) -> Iterator[Any]:
        advances = "range" in IterBasedTrainLoop.run.__code__.co_names
        for _ in range(start if advances else 0):
            yield {}
        batches = loader.batch_sampler
        assert isinstance(batches, NumberedBatches)
        length = None if isinstance(batches.sampler, InfiniteSampler) else len(batches)
        epoch, batches.skip = (0, start) if length is None else divmod(start, length)
        while True:
            batches.epoch = epoch
            if hasattr(batches.sampler, "set_epoch"):
                batches.sampler.set_epoch(epoch)
            yield from loader
            epoch += 1
