"""Training data whose RNG seeds depend on the run's seed and the place in training alone."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_dist_info, get_rank
from mmengine.runner import IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader, Sampler
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


def spread_loader(runner: Runner, number: int) -> DataLoader:
    """Load ``number`` images of the runner's training data, evenly spread, each on one rank.

    Where there are fewer, some come twice.
    """
    loader = runner.train_dataloader
    dataset: Any = SeededDataset(loader.dataset)
    sampler = _Spread(loader.dataset, number)
    cfg = runner.cfg.get("train_dataloader")
    if isinstance(cfg, dict):
        cfg = copy.deepcopy(cfg)
        cfg.update(dataset=dataset, sampler=sampler, persistent_workers=False, drop_last=False)
        return runner.build_dataloader(cfg, seed=0)
    # None where batches are chosen by a sampler of the loader's own.
    size = loader.batch_size or getattr(loader.batch_sampler, "batch_size", 1)
    return copy_loader(loader, dataset=dataset, batch_size=size, sampler=sampler)


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


class _Spread(Sampler):
    """``number`` images of a dataset, evenly spread, in order, each on one rank.

    Each is augmented with random numbers of its own, on whatever rank and by whatever worker.
    """

    def __init__(self, dataset: Any, number: int) -> None:
        # That of Sampler does nothing, and torch 2.0's asks for an argument.
        self.dataset = dataset  # batch samplers that group images by shape look into it
        rank, world_size = get_dist_info()
        chosen = np.linspace(0, len(dataset) - 1, number).round().astype(int)
        self.indices = [SeededIndex.at(index, index) for index in chosen[rank::world_size].tolist()]

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)
