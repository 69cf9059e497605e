"""A training of the whole way as a step, which is done once for its config, data and weights."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kd_det.commands.steps import Step

if TYPE_CHECKING:
    from mmengine.config import Config


@dataclass(frozen=True)
class Training:
    """A training, and the step that does it."""

    step: Step
    cfg: Config


def make_training(
    args: argparse.Namespace,
    data: Any,
    config: Path,
    cfg: Config,
    inputs: list[Step],
    weights: list[Path] | None = None,
) -> Training:
    """The step that trains a config, which is written already.

    Args:
        args: Those of ``kd-det distill``.
        data: What ``--data`` names.
        config: The config's file.
        cfg: What it holds.
        inputs: Steps whose results it uses.
        weights: What it leaves; None for its last checkpoint.
    """
    folder = Path(cfg.work_dir)
    command = ["-m", "kd_det", "train", str(config), "--work-dir", str(folder)]
    step = Step(
        folder.name,
        command + training_options(args),
        folder,
        str(config),
        inputs,
        resume="--resume",
        results=weights or [folder / "last_checkpoint"],
        digests=_digests(cfg, data, inputs),
        keep=True,
    )
    return Training(step, cfg)


def training_options(args: argparse.Namespace) -> list[str]:
    """The options of the command line that are for training and not for the config."""
    flags = {"--amp": args.amp, "--auto-scale-lr": args.auto_scale_lr}
    return [flag for flag, given in flags.items() if given]


def _digests(cfg: Config, data: Any, inputs: list[Step]) -> list[str]:
    """Digests of annotations, images and the weights from which a training starts."""
    from kd_det.datasets import dataset_config
    from kd_det.datasets.prepared import PreparedData
    from kd_det.files import file_sha256
    from kd_det.pairing.start_weights import find_files

    parts = (cfg[f"{part}_dataloader"].dataset for part in ("train", "val"))
    datasets = [dataset for part in parts for dataset in dataset_config.unwrap(part)]
    files = [Path(d.get("data_root") or "", d.get("ann_file") or "") for d in datasets]
    files += map(Path, find_files(cfg.model.to_dict()))
    if not inputs and cfg.model.get("teacher_ckpt"):
        files.append(Path(cfg.model.teacher_ckpt))
    found = [file_sha256(path) for path in dict.fromkeys(files) if path.is_file()]
    if isinstance(data, PreparedData):
        found.append(data.inspection.images_sha256)
    return found
