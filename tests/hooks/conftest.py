"""Runners that the tests of several hooks train with."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from small import digits_config, runner


class Reseed(Hook):
    """Random numbers follow from the iteration alone, for resumed runs that compare."""

    priority = "VERY_HIGH"

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        random.seed(runner.iter)
        np.random.seed(runner.iter)
        torch.manual_seed(runner.iter)


class Watch(Hook):
    """Keeps the losses of all iterations."""

    def __init__(self) -> None:
        self.losses: list[dict[str, float]] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.losses.append({name: torch.as_tensor(value).item() for name, value in outputs.items()})


class Kill(Hook):
    """Stops a training as Ctrl-C would, before the given iteration."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter == self.iteration:
            raise KeyboardInterrupt


@pytest.fixture
def make(digits: Path, teacher_ckpt: Path, tmp_path: Path) -> Callable[..., Runner]:
    """Makes Runners of two iterations an epoch, named by their work directory."""

    def make(name: str, *hooks: dict, reseed: bool = True, **options: object) -> Runner:
        cfg = digits_config("review_nd_kd", digits, tmp_path / name)
        cfg.model.teacher_ckpt = str(teacher_ckpt)
        cfg.train_dataloader.dataset.indices = 8
        cfg.train_cfg.val_interval = 99
        cfg.default_hooks.logger.interval = 1
        cfg.merge_from_dict(options)
        cfg.custom_hooks += hooks
        run = runner(cfg)
        run.watch = Watch()
        run.register_hook(run.watch)
        if reseed:
            run.register_hook(Reseed())
        return run

    return make


@pytest.fixture
def train_until() -> Callable[[Runner, int], None]:
    """Trains until a kill before the given iteration."""

    def train_until(run: Runner, iteration: int) -> None:
        run.register_hook(Kill(iteration), priority="VERY_HIGH")
        with pytest.raises(KeyboardInterrupt):
            run.train()

    return train_until
