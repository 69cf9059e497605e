"""Read configs by file or package name, and look for the files that they name."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.logging import print_log
from mmengine.utils import get_installed_path

from kd_det import caches, recipes
from kd_det.errors import InvalidInputError

caches.install()


def read_config(name: str, method: str | None = None) -> Config:
    """The config of a file, or of a package by a name like ``mmdet::path/name.py``.

    Args:
        name: The file, or the name in a package.
        method: For a pair's file: the method by which the teacher teaches.

    Raises:
        FileNotFoundError: If there is no such file.
        InvalidInputError: If the config cannot be read with that method.
    """
    if "::" in name:
        return recipes.load_recipe(package_config(name), method)
    remedy = "recipes lie in configs/, those of a package are named like mmdet::path/name.py"
    require(name, "the config file", recipes.moved_to(Path(name)) or remedy)
    return recipes.load_recipe(name, method)


def package_config(name: str) -> Path:
    """The file of a package's config, named like ``mmdet::path/name.py``.

    Raises:
        FileNotFoundError: If there is none; tells which are called alike.
    """
    try:
        return Path(Config._get_cfg_path(name, "")[0])
    except (AssertionError, ValueError, ImportError) as error:  # MMEngine's, of wrong names
        raise FileNotFoundError(f"there is no config {name}: {error}") from error
    except FileNotFoundError as error:
        package, _, inside = name.partition("::")
        folder = Path(get_installed_path(MODULE2PACKAGE[package]), ".mim", "configs")
        there = [file.relative_to(folder).as_posix() for file in folder.glob("**/*.py")]
        alike = ", ".join(f"{package}::{each}" for each in get_close_matches(inside, there))
        found = f"called alike: {alike}" if alike else f"those that there are lie in {folder}"
        raise FileNotFoundError(f"there is no config {name}; {found}") from error


def type_name(cfg: Any) -> str:
    """Name of the class that a part of a config is for, without scope and module.

    ``type`` may be a name, a path as ``'mmengine.optim.LinearLR'``, as which configs in the new
    style are read, or the class itself.

    Args:
        cfg: A dict with a ``type``, or the type.
    """
    kind = cfg.get("type") if isinstance(cfg, dict) else cfg
    name = getattr(kind, "__name__", None) or str(kind)
    return name.replace("::", ".").rpartition(".")[2]


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
    """Take out of ``default_hooks`` what is None there: the hook of a base that is not wanted.

    MMEngine's Runner does that for its own hooks alone.
    """
    hooks = cfg.get("default_hooks") or {}
    for name in [name for name, hook in hooks.items() if hook is None]:
        # Under these names MMEngine has hooks that are there unless None says otherwise.
        if name not in RUNNER_HOOKS:
            del hooks[name]


RUNNER_HOOKS = {
    "runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint",
}  # fmt: skip


def check_files(cfg: Config, parts: tuple[str, ...]) -> None:
    """Look for the local files that ``parts`` of the config will read, and check annotations.

    Args:
        cfg: The config.
        parts: Any of ``train``, ``val``, ``test`` (their datasets) and ``teacher``.

    Raises:
        FileNotFoundError: Names what is missing, where, and what to do.
        kd_det.datasets.coco.DataError: If an annotation file or an image is not valid.
    """
    if "teacher" in parts:
        require(cfg.model.get("teacher_ckpt"), "the teacher's checkpoint", TEACHER_REMEDY)
    for part in parts:
        loader = cfg.get(f"{part}_dataloader")
        if loader is not None:
            for dataset in datasets(loader.dataset):
                _check_dataset(dataset, part)
        evaluator = cfg.get(f"{part}_evaluator")
        if isinstance(evaluator, dict) and evaluator.get("ann_file"):
            remedy = f"set {part}_evaluator.ann_file as in {part}_dataloader"
            require(evaluator["ann_file"], f"the {part} evaluator's annotation file", remedy)


TEACHER_REMEDY = "train the teacher first, or set model.teacher_ckpt to its file or URL"


def _check_dataset(dataset: ConfigDict, part: str) -> None:
    from kd_det.datasets.checks import is_local

    if not is_local(dataset):
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
        folder = unpacked.get(type_name(dataset), "")
        require(root / folder, f"the {part} data", remedy)
    for prefix in (dataset.get("data_prefix") or {}).values():
        if isinstance(prefix, str) and prefix:
            require(root / prefix, f"the {part} image folder", remedy)
    if str(dataset.get("ann_file")).endswith(".json"):
        _check_annotations(dataset, part)


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


def _check_annotations(dataset: ConfigDict, part: str) -> None:
    """Check ids, images and labels of a COCO dataset; others are left to mmdet."""
    from kd_det.datasets import checks
    from kd_det.datasets.coco import DataError
    from kd_det.datasets.coco_check import check_annotations

    path = checks.annotation_file(dataset)
    if path is None:
        return
    found = check_annotations(
        path, [checks.image_folder(dataset)], evaluated=part != "train", labelled=part != "test"
    )
    if found.describe_repairs(only_required=True):
        raise DataError(
            f"{path} is not as mmdet needs it: {found.describe_repairs(only_required=True)}; "
            "tools/distill.py writes a repaired copy into config/ of its work directory"
        )
    for warning in found.warnings:
        print_log(warning, logger="current", level=logging.WARNING)
    checks.check_dataset(
        dataset, found, checks.named_classes(dataset) or checks.type_classes(dataset)
    )


def datasets(dataset: Any) -> Iterator[Any]:
    """The datasets inside wrappers (repeated, concatenated, class-balanced)."""
    inner = dataset.get("dataset") or dataset.get("datasets")
    if inner is None:
        yield dataset
    for each in inner if isinstance(inner, (list, tuple)) else [inner] if inner else []:
        yield from datasets(each)


def require(path: str | Path | None, what: str, remedy: str) -> None:
    """Raise ``FileNotFoundError`` with the remedy unless ``path`` exists (or is None or a URL)."""
    if path is not None and "://" not in str(path) and not Path(path).exists():
        raise FileNotFoundError(f"{what} does not exist: {path}; {remedy}")
