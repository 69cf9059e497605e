"""A hook that writes down what a process of a distributed run holds of the other hooks."""

from __future__ import annotations

import json
from pathlib import Path

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner


@HOOKS.register_module()
class HookReport(Hook):
    """Writes ``hooks_<rank>.json`` into the work directory after training."""

    def after_train(self, runner: Runner) -> None:
        scalars = {
            key: buffer.data[0].tolist()
            for key, buffer in runner.message_hub.log_scalars.items()
            if key.startswith(("train/scale/", "train/share/", "train/weight/", "teacher/"))
        }
        losses = runner.message_hub.get_scalar("train/distill.loss_review").data[0].tolist()
        report = dict(scalars=scalars, losses=losses, wrapper=type(runner.model).__name__)
        file = Path(runner.work_dir) / f"hooks_{get_rank()}.json"
        file.write_text(json.dumps(report))
