"""A resumed run ends with the same bits as one that was never interrupted."""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from mmengine.registry import TRANSFORMS
from mmengine.runner import Runner, ValLoop

from kd_det.hooks import ExactResumeHook
from kd_det.hooks._seeded_data import NumberedBatches, SeededDataset
from kd_det.report.scalars import read_scalars

FLIP = dict(type="mmdet.RandomFlip", prob=0.5)


BY_EPOCH: dict[str, Any] = {"train_cfg.max_epochs": 3}
BY_ITERATION: dict[str, Any] = {
    "train_cfg": dict(_delete_=True, type="IterBasedTrainLoop", max_iters=6, val_interval=99),
    "default_hooks.checkpoint.by_epoch": False,
    "default_hooks.checkpoint.interval": 2,
    "log_processor.by_epoch": False,
}
INFINITE = {"train_dataloader.sampler": dict(type="InfiniteSampler", shuffle=True)}
# Batches of 4 of 8 images: an epoch has two iterations, and checkpoints come after each odd one.
LOOPS = {
    "epochs": BY_EPOCH,
    "iterations": {**BY_ITERATION, **INFINITE},
    "iterations of a finite sampler": BY_ITERATION,
    "within an epoch": {
        **BY_EPOCH,
        "default_hooks.checkpoint.by_epoch": False,
        "default_hooks.checkpoint.interval": 3,
    },
}
LAST = {"epochs": "epoch_3.pth", "within an epoch": "iter_6.pth"}


def options_of(loop: str, workers: int) -> dict[str, Any]:
    return {
        **LOOPS[loop],
        "train_dataloader.num_workers": workers,
        "train_dataloader.persistent_workers": workers > 0,
        "default_hooks.checkpoint.max_keep_ckpts": 9,
    }


def begin(make: Callable[..., Runner], name: str, **options: Any) -> Runner:
    """A Runner with random flips; the recipe has the hook."""
    run = make(name, reseed=False, **copy.deepcopy(options))
    run.train_dataloader.dataset.pipeline.transforms.insert(3, TRANSFORMS.build(FLIP))
    return run


def train(make: Callable[..., Runner], name: str, **options: Any) -> list[dict[str, float]]:
    """The losses of all iterations of a training."""
    run = begin(make, name, **options)
    run.train()
    return run.watch.losses


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@pytest.mark.parametrize("loop, workers", [*((loop, 0) for loop in LOOPS), ("iterations", 2)])
def test_resumed_run_equals_one_that_was_not_stopped(
    make, train_until, tmp_path: Path, loop, workers
):
    options = options_of(loop, workers)
    expected = train(make, "whole", **options)
    assert len({tuple(sorted(losses.items())) for losses in expected}) == 6

    killed = begin(make, "killed", **options)
    train_until(killed, 5)
    # Wherever the process stood, it is another one that goes on.
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    after = train(make, "killed", resume=True, **options)
    assert len(after) in (2, 3)
    assert killed.watch.losses == expected[:5] and after == expected[-len(after) :]

    last = LAST.get(loop, "iter_6.pth")
    states = [torch.load(tmp_path / name / last, weights_only=True) for name in ("whole", "killed")]
    for part in ("state_dict", "optimizer", "kd_det_random"):
        assert same(states[0][part], states[1][part]), part
    assert any(key.startswith("distiller.connectors") for key in states[0]["state_dict"])


@pytest.mark.parametrize("loop", ["epochs", "iterations"])
def test_an_evaluation_that_was_cut_off_is_made_up_for(make, monkeypatch, tmp_path, loop):
    options = {**options_of(loop, 0), "default_hooks.checkpoint.save_best": "auto"}
    if "train_cfg" in options:
        options["train_cfg"] = dict(options["train_cfg"], val_interval=2)
        options["default_hooks.logger.log_metric_by_epoch"] = False
    else:
        options["train_cfg.val_interval"] = 1
    train(make, "whole", **options)
    killed = begin(make, "killed", **options)
    evaluate = ValLoop.run
    evaluations: list[int] = []

    def cut_off(self: ValLoop) -> Any:
        evaluations.append(self.runner.iter)
        if self.runner.iter == 6:
            raise KeyboardInterrupt
        return evaluate(self)

    monkeypatch.setattr(ValLoop, "run", cut_off)
    with pytest.raises(KeyboardInterrupt):
        killed.train()
    assert evaluations == [2, 4, 6]
    monkeypatch.undo()
    assert not train(make, "killed", resume=True, **options)
    whole, resumed = (read_scalars(tmp_path / name) for name in ("whole", "killed"))
    key = "coco/bbox_mAP"
    assert len(whole[key]) == 3 and resumed[key] == whole[key]
    best = [sorted(path.name for path in (tmp_path / x).glob("best*")) for x in ("whole", "killed")]
    assert best[0] == best[1]


def test_the_seed_decides_and_neither_workers_nor_evaluation(make):
    changes: list[dict[str, Any]] = [
        {},
        {
            "train_dataloader.num_workers": 2,
            "train_dataloader.persistent_workers": True,
            "train_cfg.val_interval": 1,
        },
        {"randomness": dict(seed=1)},
    ]
    options = {**options_of("epochs", 0), "train_cfg.max_epochs": 2, "randomness": dict(seed=0)}
    plain, same, other = (
        train(make, f"run{i}", **{**options, **change}) for i, change in enumerate(changes)
    )
    assert plain == same
    assert plain[0] != other[0]


def test_a_drawn_seed_is_kept(make, train_until):
    """Without a seed in the config the runner draws one; the resumed run has that of the first."""
    options = {**options_of("epochs", 0), "randomness": dict(seed=None)}
    run, resumed = begin(make, "killed", **options), begin(make, "killed", resume=True, **options)
    train_until(run, 3)
    resumed.train()
    assert resumed.seed == run.seed
    assert resumed.watch.losses[0] == run.watch.losses[2]


def test_resuming_a_checkpoint_of_another_kind_is_warned_about():
    warned: list[str] = []
    run: Any = SimpleNamespace(_resume=True, logger=SimpleNamespace(warning=warned.append))
    ExactResumeHook().after_load_checkpoint(run, {"kd_det_random": {}})
    assert not warned
    ExactResumeHook().after_load_checkpoint(run, {})
    assert len(warned) == 1 and "was made without kd_det.ExactResumeHook" in warned[0]
    run._resume = False
    ExactResumeHook().after_load_checkpoint(run, {})
    assert len(warned) == 1


# The parts


class Draws:
    """A dataset whose items are drawn from all generators."""

    metainfo: ClassVar[dict] = dict(classes=("a",))

    def __getitem__(self, index: int) -> tuple[float, ...]:
        return index, random.random(), np.random.rand(), torch.rand(1).item()

    def __len__(self) -> int:
        return 10


class Batches:
    sampler = range(10)

    def __iter__(self):
        return iter([[0, 1], [2, 3], [4, 5]])

    def __len__(self) -> int:
        return 3


def drawn(batches: NumberedBatches, dataset: SeededDataset) -> list[list]:
    return [[dataset[index] for index in batch] for batch in batches]


def test_items_depend_on_their_place_alone():
    dataset, batches = SeededDataset(Draws()), NumberedBatches(Batches(), seed=7)
    first = drawn(batches, dataset)
    assert drawn(batches, dataset) == first
    assert len({item[1:] for batch in first for item in batch}) == 6
    batches.epoch = 1
    second = drawn(batches, dataset)
    assert all(a[1:] != b[1:] for x, y in zip(first, second) for a, b in zip(x, y))
    batches.skip = 2
    assert drawn(batches, dataset) == second[2:]
    assert drawn(batches, dataset) == second  # the next epoch is whole again
    assert drawn(NumberedBatches(Batches(), seed=8), dataset) != first


def test_a_dataset_is_pickled_and_changed_through_its_wrapper():
    dataset = pickle.loads(pickle.dumps(SeededDataset(Draws())))
    assert len(dataset) == 10 and dataset.metainfo == dict(classes=("a",))
    dataset.pipeline = "another"
    assert dataset.__wrapped__.pipeline == copy.deepcopy(dataset).pipeline == "another"
    with pytest.raises(AttributeError, match="no_such"):
        _ = dataset.no_such


def test_an_item_leaves_the_generators_as_they_were():
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    SeededDataset(Draws())[next(iter(NumberedBatches(Batches(), 0)))[0]]
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
