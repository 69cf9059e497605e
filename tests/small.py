"""Small real things for tests: digits at 64 pixels, the detectors of configs/digits, Runners."""

from __future__ import annotations

import copy
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

import kd_det  # noqa: F401  (patches the stack before mmdet is imported)
from kd_det import caches
from kd_det.recipes import load_named, load_recipe, methods_of

caches.install()  # as commands do: each config of a package is looked up in a hundred files

ROOT = Path(__file__).resolve().parents[1]
IMAGE_SIZE = 64
# Fewer than the proposals of an image, so that every image fills them.
ROIS_PER_IMAGE = 64


def recipes_in(files: Iterable[Path]) -> list[tuple[Path, str | None]]:
    """All files, those of pairs once for every method."""
    return [(path, method) for path in files for method in methods_of(path) or [None]]


@lru_cache
def _load(path: Path, method: str | None) -> Config:
    return load_recipe(path, method)


def load(path: Path, method: str | None = None) -> Config:
    """A recipe of one's own, read once in a process."""
    return copy.deepcopy(_load(path, method))


def recipe_id(value: Path | str | None) -> str:
    """The name of a recipe's file or method as a test's parameter."""
    if isinstance(value, Path):
        return str(value.relative_to(ROOT / "configs").with_suffix(""))
    return value or "-"


def digits_config(name: str, data: Path, work_dir: Path, **options: object) -> Config:
    """The digits' recipe of a method or file on ``data``, one epoch, all in this process."""
    cfg = load_named(ROOT / "configs" / "digits" / f"{name}.py")
    # Every Runner and every checkpoint would format the config anew, for seconds.
    object.__setattr__(cfg, "_format_python_code", False)
    for part in ("train", "val", "test"):
        loader = cfg[f"{part}_dataloader"]
        loader.update(batch_size=4, num_workers=0, persistent_workers=False)
        # MMEngine collects garbage where it serialises, which takes a second.
        loader.dataset.update(data_root=str(data), serialize_data=False)
        for transform in loader.dataset.pipeline:
            if transform["type"] == "Resize":
                transform["scale"] = (IMAGE_SIZE, IMAGE_SIZE)
    for part in ("val", "test"):
        cfg[f"{part}_evaluator"].ann_file = str(data / "annotations" / "instances_val.json")
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    cfg.param_scheduler = []
    for detector in (cfg.model, cfg.model.get("architecture"), cfg.model.get("teacher")):
        if detector is not None and "train_cfg" in detector:
            detector.train_cfg.rcnn.sampler.num = ROIS_PER_IMAGE
    cfg.work_dir = str(work_dir)
    cfg.merge_from_dict(options)
    return cfg


def save_random_teacher(path: Path) -> Path:
    """Weights of the digits teacher as it is initialised, as a checkpoint file."""
    torch.manual_seed(0)
    model = build(Config.fromfile(ROOT / "configs" / "digits" / "teacher.py").model)
    torch.save({"state_dict": model.state_dict()}, path)
    return path


def build(model: dict) -> torch.nn.Module:
    """Build a model config in mmdet's scope."""
    from mmdet.registry import MODELS

    with DefaultScope.overwrite_default_scope("mmdet"):
        return set_level_embed(MODELS.build(model))


def set_level_embed(model: torch.nn.Module) -> torch.nn.Module:
    """Draw DINO's ``level_embed``, which is whatever the memory had until ``init_weights``."""
    for name, parameter in model.named_parameters():
        if name.endswith("level_embed"):
            torch.nn.init.normal_(parameter)
    return model


def runner(cfg: Config) -> Runner:
    """A Runner of a name of its own, so that several can live in one process."""
    # Not from an RNG, which a test may have seeded: MMEngine keeps a visualizer for each name.
    cfg.experiment_name = f"{Path(cfg.work_dir).name}_{uuid4().hex}"
    return Runner.from_cfg(cfg)


@contextmanager
def no_waits(device: torch.device) -> Iterator[None]:
    """Within, what waits for a GPU is an error."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def train_runs(data: Path, root: Path) -> dict[str, Path]:
    """Work directories of a teacher, a plain and a distilled student, of two iterations each."""
    folders = {role: root / role for role in ("teacher", "plain", "distilled")}
    recipes = dict(teacher="teacher", plain="plain", distilled="review_nd_kd")
    for role, folder in folders.items():
        cfg = digits_config(recipes[role], data, folder)
        cfg.train_dataloader.dataset.indices = 8
        cfg.default_hooks.logger.interval = 1
        if role == "distilled":
            cfg.model.teacher_ckpt = str(folders["teacher"] / "epoch_1.pth")
            cfg.custom_hooks[1].interval = 1
        runner(cfg).train()
    return folders


def start_two(config: Path, folder: Path, *options: str) -> subprocess.CompletedProcess:
    """``tools/dist_train.sh`` with two processes on the CPU, started in ``folder``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Reports of ranks are imported.
    paths = [ROOT, *(ROOT / "tests" / each for each in ("", "hooks", "pairing"))]
    return subprocess.run(
        ["bash", str(ROOT / "tools" / "dist_train.sh"), str(config), "2", *options],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env={
            **os.environ,
            "PYTHON": sys.executable,
            "PORT": str(port),
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
        },
    )


def edit_annotations(folder: Path, edit: Callable[[dict[str, Any]], object], *splits: str) -> None:
    """Change annotation files of a digits-coco set; both if no split is named."""
    for split in splits or ("train", "val"):
        path = folder / "annotations" / f"instances_{split}.json"
        data = json.loads(path.read_text())
        edit(data)
        path.write_text(json.dumps(data))
