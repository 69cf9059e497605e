"""Read configs by file or package name, and look for the files that they name."""

from __future__ import annotations

import json
import logging
import os
from difflib import get_close_matches
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.logging import print_log
from mmengine.utils import get_installed_path

from kd_det import caches, recipes
from kd_det.datasets import dataset_config
from kd_det.errors import InvalidInputError
from kd_det.registry import type_name
from kd_det.shipped import find_configs

# Variables in which launchers (torchrun, Slurm, MPI) give a process its number.
RANK_VARIABLES = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK")
# Hooks that MMEngine's Runner adds unless they are None.
RUNNER_HOOKS = {
    "runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint",
}  # fmt: skip


def read_config(name: str, method: str | None = None) -> Config:
    """The config of a file, or of a package by a name like ``mmdet::path/name.py``.

    Args:
        name: The file, or the name in a package.
        method: For a pair's file: the method by which the teacher teaches.

    Raises:
        FileNotFoundError: If there is no such file.
        InvalidInputError: If the config cannot be read with that method.
    """
    caches.install()
    if "::" in name:
        return recipes.load_recipe(package_config(name), method)
    remedy = "recipes are named like kd_det::frcnn_r101_r18.py, mmdet's like mmdet::path/name.py"
    require(name, "the config file", recipes.moved_to(Path(name)) or remedy)
    return recipes.load_recipe(name, method)


def package_config(name: str) -> Path:
    """The file of a package's config, named like ``mmdet::path/name.py``.

    Raises:
        FileNotFoundError: If it does not exist; names similar ones.
    """
    try:
        return Path(Config._get_cfg_path(name, "")[0])
    except (AssertionError, ValueError, ImportError) as error:  # MMEngine's, of wrong names
        raise FileNotFoundError(f"unknown config {name}: {error}") from error
    except FileNotFoundError as error:
        package, _, inside = name.partition("::")
        if package == "kd_det":
            folder = find_configs()
        else:
            folder = Path(get_installed_path(MODULE2PACKAGE[package]), ".mim", "configs")
        there = [file.relative_to(folder).as_posix() for file in folder.glob("**/*.py")]
        alike = ", ".join(f"{package}::{each}" for each in get_close_matches(inside, there))
        found = f"similar names: {alike}" if alike else f"available configs lie in {folder}"
        raise FileNotFoundError(f"unknown config {name}; {found}") from error


def is_distillation(cfg: Config) -> bool:
    """Whether the config's model is a student with a teacher."""
    return "teacher" in cfg.model and "architecture" in cfg.model


def model_config(cfg: Config, part: str) -> ConfigDict:
    """The config of a distillation's ``'student'`` or ``'teacher'`` alone."""
    model = cfg.model.architecture if part == "student" else cfg.model.teacher
    if "cfg_path" in model:  # MMRazor's way to name the model of another config
        from mmengine.hub import get_config

        model = get_config(model.cfg_path).model
    return model


def drop_hooks_of_none(cfg: Config) -> None:
    """Remove the entries of ``default_hooks`` that are None: hooks of a base that are not wanted.

    MMEngine's Runner does that for its own hooks alone.
    """
    hooks = cfg.get("default_hooks") or {}
    for name in [name for name, hook in hooks.items() if hook is None]:
        if name not in RUNNER_HOOKS:
            del hooks[name]


def check_files(cfg: Config, parts: tuple[str, ...]) -> None:
    """Look for the local files that ``parts`` of the config will read, and check annotations.

    Of several processes the first one checks annotations and images: for COCO's training data it
    takes as long as mmdet's own reading of them.

    Args:
        cfg: The config.
        parts: Any of ``train``, ``val``, ``test`` (their datasets) and ``teacher``.

    Raises:
        FileNotFoundError: Names what is missing, where, and what to do.
        kd_det.datasets.coco.DataError: If an annotation file or an image is not valid.
    """
    from rich.console import Console

    from kd_det.datasets.loader_check import LoaderCheck

    if "teacher" in parts:
        remedy = "train the teacher first, or set model.teacher_ckpt to its file or URL"
        require(cfg.model.get("teacher_ckpt"), "the teacher's checkpoint", remedy)
    for part in parts:
        loader, evaluator = cfg.get(f"{part}_dataloader"), cfg.get(f"{part}_evaluator")
        for dataset in dataset_config.unwrap(loader.dataset) if loader else ():
            _require_data(dataset, part)
        if isinstance(evaluator, dict) and evaluator.get("ann_file"):
            remedy = f"set {part}_evaluator.ann_file as in {part}_dataloader"
            require(evaluator["ann_file"], f"the {part} evaluator's annotation file", remedy)
    if any(os.environ.get(name, "0") != "0" for name in RANK_VARIABLES):
        return
    check = LoaderCheck()
    with Console(stderr=True).status("Checking annotations and images"):
        for part in parts:
            if cfg.get(f"{part}_dataloader"):
                check.check(cfg, part)
    for remark in check.remarks:
        print_log(remark, logger="current", level=logging.WARNING)


def _require_data(dataset: ConfigDict, part: str) -> None:
    if not dataset_config.is_local(dataset):
        return
    root = Path(dataset.get("data_root") or "")
    remedy = f"put the dataset there, or set {part}_dataloader.dataset.data_root"
    if root.name == "digits-coco":
        remedy = f"run: kd-det digits --root {root}"
    if dataset.get("ann_file"):
        require(root / dataset.ann_file, f"the {part} annotation file", remedy)
        _check_start(root / dataset.ann_file, part)
    elif dataset.get("data_root"):
        # What mmpretrain looks for, if it may not download it.
        unpacked = {"CIFAR10": "cifar-10-batches-py", "CIFAR100": "cifar-100-python"}
        require(root / unpacked.get(type_name(dataset), ""), f"the {part} data", remedy)
    for prefix in (dataset.get("data_prefix") or {}).values():
        if isinstance(prefix, str) and prefix:
            require(root / prefix, f"the {part} image folder", remedy)


def _check_start(path: Path, part: str) -> None:
    """Raise ``InvalidInputError`` if a JSON file is empty, or begins as no object does."""
    with path.open("rb") as file:
        raw = file.read(64)
    start = raw.decode(json.detect_encoding(raw), errors="ignore")  # type: ignore[attr-defined]
    if path.suffix == ".json" and not start.lstrip().startswith("{"):
        raise InvalidInputError(
            f"the {part} annotation file {path}: expected JSON in COCO format, found "
            f"{repr(raw.lstrip()[:20]) if raw.strip() else 'nothing'}"
        )


def require(path: str | Path | None, what: str, remedy: str) -> None:
    """Raise ``FileNotFoundError`` with the remedy unless ``path`` exists (or is None or a URL)."""
    if path is not None and "://" not in str(path) and not Path(path).exists():
        raise FileNotFoundError(f"{what} does not exist: {path}; {remedy}")
