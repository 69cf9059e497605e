"""Training data whose random numbers depend on the seed and its place in training alone."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_rank
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from kd_det.seeds import DATA, Seeds, numbers_of


class SeededIndex(int):
    """Index of an item that knows where in training it is used; travels to workers."""

    where: tuple[int, ...]

    @classmethod
    def at(cls, index: int, *where: int) -> SeededIndex:
        """The index, used at a place that these numbers name."""
        located = cls(index)
        located.where = (DATA, *where)
        return located


class SeededDataset:
    """A dataset whose transforms draw the same numbers for an item wherever it is made.

    Reads and writes of attributes go to the dataset inside, for hooks that change its pipeline.
    """

    def __init__(self, dataset: Any) -> None:
        object.__setattr__(self, "inner", dataset)

    def __getitem__(self, index: int) -> Any:
        if not isinstance(index, SeededIndex):
            return self.inner[index]
        with numbers_of(Seeds(*index.where)):
            return self.inner[int(index)]

    def __len__(self) -> int:
        return len(self.inner)

    def __getattr__(self, name: str) -> Any:
        if name == "inner":  # asked for while it is unpickled in a worker
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.inner, name, value)

    def __getstate__(self) -> dict[str, Any]:
        return {"inner": self.inner}

    def __setstate__(self, state: dict[str, Any]) -> None:
        object.__setattr__(self, "inner", state["inner"])


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
    """The runner's training data, from its beginning, with random numbers of the runner's seed."""
    loader = runner.train_dataloader
    cfg = runner.cfg.get("train_dataloader")
    dataset: Any = SeededDataset(loader.dataset)
    if isinstance(cfg, dict):
        # Samplers may have begun already, for the workers of the loop's own loader.
        cfg = copy.deepcopy(cfg)
        cfg["dataset"] = dataset
        loader = runner.build_dataloader(cfg, seed=runner.seed)
    return DataLoader(
        dataset,
        batch_sampler=NumberedBatches(loader.batch_sampler, runner.seed),
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        prefetch_factor=loader.prefetch_factor,
        persistent_workers=loader.persistent_workers,
        # Starting workers would otherwise take a number from the training's.
        generator=torch.Generator().manual_seed(runner.seed),
    )


def endless(loader: DataLoader, start: int) -> Iterator[Any]:
    """Batches for a loop that counts iterations, from the one of number ``start``.

    MMEngine's loop first asks for as many batches as a resumed run had; those are empty, so that
    nothing is loaded for them.
    """
    for _ in range(start):
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
