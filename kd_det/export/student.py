"""A student that stands alone: its weights and its config, for MMDetection or MMPretrain."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from kd_det.algorithms.checkpoint import CheckpointError, read_weights
from kd_det.export.plain_config import PlainConfig
from kd_det.files import file_sha256, write_folder_atomically
from kd_det.literals import ascii_source

CONFIG, CHECKPOINT, WEIGHTS, METADATA = (
    "config.py", "model.pth", "model.safetensors", "metadata.json",
)  # fmt: skip
PACKAGES = ("kd_det", "mmengine", "mmcv", "mmcv-lite", "mmdet", "mmpretrain", "mmrazor", "torch")
# Logged by a Runner beside the metrics of an evaluation.
TIMES = ("time", "data_time", "step")


def export_student(
    checkpoint: Path, run: Config, plain: PlainConfig, folder: Path, logs: Path | None = None
) -> dict[str, Any]:
    """Write the student of a checkpoint into a folder of its own, replacing what was there.

    ``config.py`` and ``model.pth`` are what MMDetection's tools and inferencers take;
    ``model.safetensors`` has the same weights; ``metadata.json`` says where they come from, as do
    ``meta`` of the former and the metadata of the latter. All four are of one export, whenever the
    process ends. Weights are those that the run evaluates: with an ``EMAHook``, which swaps
    them when a checkpoint is saved, the averaged ones.

    Args:
        checkpoint: A checkpoint of the run.
        run: The run's config.
        plain: What :func:`kd_det.export.plain_config.plain_config` made of it.
        folder: Where to; it may hold an earlier export and nothing else.
        logs: The run's work directory, whose logs have the metrics of the checkpoint's epoch.

    Returns:
        The metadata.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        kd_det.algorithms.CheckpointError: If it holds something else than weights.
        FileExistsError: If there are other files in ``folder``.
        OSError: If the folder cannot be written; an earlier export stays whole.
    """
    state, meta = read_weights(checkpoint, "student")
    weights = _own_memory(state, checkpoint)
    metadata = _metadata(checkpoint, meta, run, plain, logs)
    texts = {key: each if isinstance(each, str) else json.dumps(each)
             for key, each in metadata.items()}  # fmt: skip
    dataset_meta = _as_json(meta.get("dataset_meta") or {})
    meta = dict(metadata, dataset_meta=dataset_meta, cfg=plain.text)
    write_folder_atomically(
        folder,
        {
            CONFIG: ascii_source(plain.text).encode("utf-8", "backslashreplace"),
            CHECKPOINT: lambda path: _save_checkpoint(path, dict(meta=meta, state_dict=weights)),
            WEIGHTS: lambda path: _save_weights(path, weights, texts),
            METADATA: (json.dumps(metadata, indent=2) + "\n").encode(),
        },
    )
    return metadata


def _save_checkpoint(path: Path, checkpoint: dict[str, Any]) -> None:
    with path.open("wb") as file:  # of Python's, whose errors are OSError
        torch.save(checkpoint, file)


def _save_weights(path: Path, weights: dict[str, Tensor], texts: dict[str, str]) -> None:
    try:
        save_file(weights, path, texts)
    except SafetensorError as error:
        raise OSError(f"{path}: {error}") from error


def _own_memory(state: dict[str, Any], checkpoint: Path) -> dict[str, Tensor]:
    """Copy tensors that share memory, as tied weights do: safetensors refuses them."""
    if other := [key for key, value in state.items() if not isinstance(value, Tensor)]:
        raise CheckpointError(f"{checkpoint}: expected tensors, found something else as {other}")
    weights, seen = {}, set()
    for key, value in state.items():
        value = value.detach().contiguous()
        memory = value.untyped_storage()
        if memory.data_ptr() in seen or memory.nbytes() != value.numel() * value.element_size():
            value = value.clone()
        seen.add(memory.data_ptr())
        weights[key] = value
    return weights


def _metadata(
    checkpoint: Path, meta: dict[str, Any], run: Config, plain: PlainConfig, logs: Path | None
) -> dict[str, Any]:
    """Collect the metadata as JSON values; None where unknown."""
    cfg = run.to_dict()  # types by their names, where a config in the new style has classes
    model = cfg["model"]
    losses = (model.get("distiller") or {}).get("distill_losses") or {}
    distilled = "architecture" in model
    teacher = model.get("teacher_ckpt") if distilled else None
    data = (cfg.get("train_dataloader") or {}).get("dataset") or {}
    return _as_json(
        dict(
            model=plain.cfg.model.type,
            requires=[plain.cfg.default_scope, *plain.requires],
            classes=(meta.get("dataset_meta") or {}).get("classes"),
            dataset={key: data[key] for key in ("type", "data_root", "ann_file") if key in data},
            metrics=logged_metrics(logs, step) if logs and (step := _step(meta, run)) else None,
            epoch=meta.get("epoch"),
            iteration=meta.get("iter"),
            method=dict(
                algorithm=model["type"],
                losses={name: losses[name]["type"] for name in sorted(losses)},
            )
            if distilled
            else None,
            teacher=teacher,
            teacher_file_sha256=_file_sha256(teacher),
            checkpoint=checkpoint.name,
            versions=_versions(),
        )
    )


def logged_metrics(logs: Path, step: int) -> dict[str, float] | None:
    """Read the metrics that a run logged after ``step`` epochs (or iterations).

    Args:
        logs: The run's work directory.
        step: The checkpoint's.

    Returns:
        Numbers by name, of the last evaluation at that step; None if there is none.
    """
    found = None
    for file in sorted(logs.glob("*/vis_data/scalars.json")):
        for line in file.read_text(encoding="utf-8").splitlines():
            # A line that a kill left unfinished is of no evaluation.
            entry = json.loads(line) if line.endswith("}") else {}
            # Those of training have the learning rate and the like, under "iter".
            if entry.get("step") == step and "iter" not in entry:
                found = {key: value for key, value in entry.items() if key not in TIMES}
    return found


def _step(meta: dict[str, Any], run: Config) -> int | None:
    """The step under which LoggerHook logged the evaluation of this checkpoint."""
    loop = run.get("train_cfg") or {}
    logger = (run.get("default_hooks") or {}).get("logger") or {}
    if not logger.get("log_metric_by_epoch", True):
        return meta.get("iter")
    # A run that counts iterations has no epochs to tell its evaluations by.
    by_epoch = loop.get("by_epoch", "IterBased" not in str(loop.get("type")))
    return meta.get("epoch") if by_epoch else None


def _file_sha256(path: str | None) -> str | None:
    """Compute the digest of a file, or of MMEngine's copy of a download."""
    if path is None:
        return None
    file = Path(path)
    if "://" in path:
        file = Path(torch.hub.get_dir(), "checkpoints", path.rsplit("/", 1)[-1])
    if not file.is_file():
        return None
    return file_sha256(file)


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _as_json(value: Any) -> Any:
    """Convert to plain lists, dicts, numbers and texts, also from NumPy's."""
    return json.loads(json.dumps(value, default=lambda each: each.tolist()))
