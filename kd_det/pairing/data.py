"""Puts the user's data into a config: from a COCO folder, or as a config of mmdet names it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.registry import DefaultScope

from kd_det import config_files
from kd_det.pairing.coco_folder import (
    CocoFolder,
    DataError,
    Part,
    find_coco_folder,
    read_annotations,
)
from kd_det.pairing.text import read_config

Settings = dict[str, Any]
LOADERS = ("train", "val", "test")


@dataclass(frozen=True)
class Data:
    """What is known of the data, and what the config says of it.

    Args:
        settings: Top-level keys of the config: data loaders and evaluators.
        classes: Names, in the order of the labels.
        images: Number of training images in an epoch; None where it was not read.
        decisions: What was found and decided, in sentences.
    """

    settings: Settings
    classes: tuple[str, ...]
    images: int | None
    decisions: list[str] = field(default_factory=list)


def read_data(data: str | None, student: Settings, base: Settings) -> Data:
    """Data loaders and evaluators for a pair.

    Args:
        data: A COCO folder, a config of mmdet with data loaders, or None for those that the
            student's config has.
        student: The student's config, whose pipelines a folder's images go through.
        base: A config of COCO, for what the student's lacks.

    Raises:
        DataError: If it cannot be found, or lacks what the student needs.
    """
    if data is None:
        return _of_config(student, "the student's config")
    if "::" in data or data.endswith(".py"):
        return _of_config(read_config(data), data)
    return _of_folder(find_coco_folder(Path(data)), student, base)


def _of_folder(folder: CocoFolder, student: Settings, base: Settings) -> Data:
    parts: dict[str, Part] = {"train": folder.train, "val": folder.val, "test": folder.val}
    settings: Settings = {}
    for name, part in parts.items():
        key = f"{name}_dataloader"
        loader = copy.deepcopy(student.get(key) or base[key])
        datasets = list(config_files.datasets(loader["dataset"]))
        if len(datasets) != 1:
            raise DataError(
                f"the student's {key} joins {len(datasets)} data sets, so nothing says which one "
                f"{folder.root} is; give a config of mmdet as --data"
            )
        _point(datasets[0], folder, part)
        settings[key] = loader
        if name != "train":
            settings[f"{name}_evaluator"] = _evaluator(student, base, name, folder, part)
    _require_annotations(settings["train_dataloader"], folder)
    decisions = [
        f"data: {part.count} images of {folder.root / part.annotations} in "
        f"{folder.root / part.images}, to {what}"
        for part, what in ((folder.train, "learn from"), (folder.val, "evaluate on"))
    ]
    if folder.groups:
        decisions.append(f"data: {', '.join(folder.groups)} groups classes and is none")
    images = folder.train.count * _repetitions(settings["train_dataloader"]["dataset"])
    return Data(settings, folder.train.classes, images, decisions)


def _point(dataset: Settings, folder: CocoFolder, part: Part) -> None:
    """Let a data set's config name another folder; its pipeline stays."""
    for key in ("data_prefix", "metainfo", "proposal_file"):
        dataset.pop(key, None)
    dataset.update(
        type="CocoDataset",
        data_root=f"{folder.root}/",
        ann_file=part.annotations,
        data_prefix=dict(img=f"{part.images}/" if part.images else ""),
        metainfo=dict(classes=part.classes),
    )


def _evaluator(
    student: Settings, base: Settings, name: str, folder: CocoFolder, part: Part
) -> Settings:
    own = student.get(f"{name}_evaluator")
    is_coco = isinstance(own, dict) and str(own.get("type")).split(".")[-1] == "CocoMetric"
    evaluator: Settings = copy.deepcopy((student if is_coco else base)[f"{name}_evaluator"])
    evaluator["ann_file"] = str(folder.root / part.annotations)
    return evaluator


def _require_annotations(loader: Settings, folder: CocoFolder) -> None:
    """Raise ``DataError`` if the student learns from what the annotations do not have."""
    for transform in _transforms(loader["dataset"]):
        if transform.get("with_mask") and not folder.train.has_masks:
            raise DataError(
                f"the student learns masks, and not every annotation of "
                f"{folder.root / folder.train.annotations} has a 'segmentation'; take a student "
                "without a mask head, as a Faster R-CNN (the teacher may have one)"
            )
        if transform.get("with_seg"):
            raise DataError(
                f"the student learns a map of the scene, which a COCO folder as {folder.root} does "
                "not have; take a student without semantic head, as HTC without semantic"
            )


def _repetitions(dataset: Settings) -> int:
    """How often an epoch sees each image, as a RepeatDataset says."""
    inner = dataset.get("dataset")
    return dataset.get("times", 1) * (_repetitions(inner) if isinstance(inner, dict) else 1)


def _transforms(dataset: Settings) -> Iterator[Settings]:
    """Of a data set and its wrappers."""
    yield from dataset.get("pipeline") or ()
    if isinstance(dataset.get("dataset"), dict):
        yield from _transforms(dataset["dataset"])


def _of_config(cfg: Settings, name: str) -> Data:
    keys = [f"{part}_{what}" for part in LOADERS for what in ("dataloader", "evaluator")]
    settings = {key: copy.deepcopy(cfg[key]) for key in keys if cfg.get(key)}
    lacking = [key for key in ("train_dataloader", "val_dataloader") if key not in settings]
    if lacking:
        raise DataError(f"{name} has no {' and no '.join(lacking)}; give --data a COCO folder")
    for what in ("dataloader", "evaluator"):
        if f"val_{what}" in settings:
            settings.setdefault(f"test_{what}", copy.deepcopy(settings[f"val_{what}"]))
    datasets = [
        dataset
        for part in LOADERS
        for dataset in config_files.datasets(settings[f"{part}_dataloader"]["dataset"])
    ]
    classes = _classes_of(datasets[0], name)
    for dataset in datasets:
        if classes != _classes_of_type(dataset):
            dataset["metainfo"] = dict(dataset.get("metainfo") or {}, classes=classes)
    return Data(settings, classes, None, [f"data: that of {name}"])


def _classes_of(dataset: Settings, name: str) -> tuple[str, ...]:
    """As ``metainfo`` says, the annotation file, or the type of the data set."""
    named = (dataset.get("metainfo") or {}).get("classes")
    if named:
        return tuple(named)
    file = Path(dataset.get("data_root") or "") / str(dataset.get("ann_file"))
    if str(dataset.get("type")).split(".")[-1] == "CocoDataset" and file.is_file():
        return tuple(str(c["name"]) for c in read_annotations(file)["categories"])
    known = _classes_of_type(dataset)
    if not known:
        raise DataError(f"{name} does not say its classes; set metainfo=dict(classes=(...)) there")
    return known


def _classes_of_type(dataset: Settings) -> tuple[str, ...]:
    """What mmdet takes where a data set's config names no classes."""
    from mmdet.registry import DATASETS

    with DefaultScope.overwrite_default_scope("mmdet"):
        kind = DATASETS.get(str(dataset.get("type")))
    return tuple(getattr(kind, "METAINFO", {}).get("classes", ()))
