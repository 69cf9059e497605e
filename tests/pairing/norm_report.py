"""A hook that writes down the statistics of the norms of each process of a distributed run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner


@HOOKS.register_module()
class NormReport(Hook):
    """Writes ``norms_<stage>_<rank>.pt`` into the work directory before and after validation."""

    priority = "LOWEST"

    def after_train_epoch(self, runner: Runner) -> None:
        write(runner, "before")

    def after_val_epoch(self, runner: Runner, metrics: Any = None) -> None:
        write(runner, "after")


def write(runner: Runner, stage: str) -> None:
    model = runner.model.module
    norms = {
        f"{who}.{name}": value
        for who in ("student", "teacher")
        for name, value in getattr(model, who).state_dict().items()
        if "running_" in name
    }
    torch.save(norms, Path(runner.work_dir) / f"norms_{stage}_{get_rank()}.pt")
