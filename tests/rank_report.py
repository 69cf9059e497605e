"""A hook that writes down what each process of a distributed run ends with."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner


@HOOKS.register_module()
class RankReport(Hook):
    """Writes ``rank_<n>.json`` into the work directory after training."""

    def __init__(self) -> None:
        self.images: list[int] = []
        self.losses: list[dict[str, float]] = []

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict) -> None:
        self.images += [sample.img_id for sample in data_batch["data_samples"]]

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        self.losses.append({k: float(v) for k, v in outputs.items() if k.startswith("distill.")})

    def after_train(self, runner: Runner) -> None:
        model = runner.model.module
        digests = {}
        for part in ("architecture", "distiller"):
            digest = hashlib.sha256()
            # Running statistics of normalisation layers are each process's own.
            for name, value in sorted(getattr(model, part).named_parameters()):
                digest.update(name.encode() + value.detach().numpy().tobytes())
            digests[part] = digest.hexdigest()
        loss = model.distiller.distill_losses["loss_nd"]
        report = dict(
            world_size=get_world_size(),
            iterations=runner.iter,
            images=self.images,
            losses=self.losses,
            digests=digests,
            centers=hashlib.sha256(loss.centers.numpy().tobytes()).hexdigest(),
            counts=loss.counts.tolist(),
            finds_unused=runner.model.find_unused_parameters,
            forms={k: v for k, v in runner.message_hub.runtime_info.items() if "form of" in k},
        )
        file = Path(runner.work_dir) / f"rank_{get_rank()}.json"
        file.write_text(json.dumps(report))
