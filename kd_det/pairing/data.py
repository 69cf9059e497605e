"""Put the user's data into a config: from a COCO folder, or as a config of mmdet names it."""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kd_det.datasets import dataset_config
from kd_det.datasets.coco import DataError
from kd_det.datasets.loader_check import LoaderCheck
from kd_det.pairing.coco_folder import CocoFolder, Part, find_coco_folder
from kd_det.pairing.start_weights import nested_dicts
from kd_det.pairing.text import read_config
from kd_det.registry import type_name

Settings = dict[str, Any]
PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Data:
    """The data of a pair.

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


def read_data(
    data: str | None, student: Settings, base: Settings, work_dir: str | Path = "work_dirs"
) -> Data:
    """Data loaders and evaluators for a pair.

    Args:
        data: A COCO folder, a config of mmdet with data loaders, or None for those that the
            student's config has.
        student: The student's config, whose pipelines a folder's images go through.
        base: A config of COCO, for what the student's lacks.
        work_dir: Where repaired copies of annotation files go, if any are needed; the data is
            never written.

    Raises:
        DataError: If it cannot be found, is not valid, or lacks what the student needs.
    """
    copies = Path(work_dir) / "config"
    if data is None:
        return _read_config_data(student, "the student's config", copies)
    if "::" in data or data.endswith(".py"):
        return _read_config_data(read_config(data), data, copies)
    return _read_folder_data(find_coco_folder(Path(data)), student, base, copies)


def _read_folder_data(folder: CocoFolder, student: Settings, base: Settings, copies: Path) -> Data:
    classes = folder.train.found.classes
    settings: Settings = {}
    for name, part in zip(PARTS, (folder.train, folder.val, folder.val)):
        key = f"{name}_dataloader"
        loader = copy.deepcopy(student.get(key) or base[key])
        datasets = list(dataset_config.unwrap(loader["dataset"]))
        if len(datasets) != 1:
            raise DataError(
                f"the student's {key} joins {len(datasets)} data sets, and --data "
                f"{folder.root} is one; give a config of mmdet as --data"
            )
        _point(datasets[0], folder, part, classes)
        settings[key] = loader
        if name != "train":
            settings[f"{name}_evaluator"] = _evaluator(student, base, name, folder, part)
    learnt = settings["train_dataloader"]["dataset"]
    if any(part.get("with_seg") for part in nested_dicts(learnt)):
        raise DataError(
            f"the student learns a map of the scene, which a COCO folder as {folder.root} does "
            "not have; take a student without semantic head, as HTC without semantic"
        )
    decisions = [
        f"data: {part.count} images of {folder.root / part.annotations} in "
        f"{folder.root / part.images}, to {what}"
        for part, what in ((folder.train, "learn from"), (folder.val, "evaluate on"))
    ]
    if folder.groups:
        decisions.append(f"data: {', '.join(folder.groups)} groups classes and is none")
    known = dict(train=folder.train.found, val=folder.val.found)
    decisions += _check(LoaderCheck(copies, known), settings, classes)
    return Data(settings, classes, folder.train.count * _repetitions(learnt), decisions)


def _point(dataset: Settings, folder: CocoFolder, part: Part, classes: tuple[str, ...]) -> None:
    """Let a data set's config name another folder; its pipeline stays."""
    for key in dataset.keys() - _coco_options() - {"_scope_"}:
        del dataset[key]  # of another kind of dataset
    for key in ("data_prefix", "metainfo", "proposal_file"):
        dataset.pop(key, None)
    dataset.update(
        type="CocoDataset",
        data_root=f"{folder.root.as_posix()}/",
        ann_file=part.annotations,
        data_prefix=dict(img=f"{part.images}/" if part.images else ""),
        metainfo=dict(classes=classes),
    )


def _coco_options() -> set[str]:
    """Arguments of mmdet's CocoDataset."""
    from mmdet.datasets import CocoDataset

    return {name for kind in CocoDataset.__mro__ for name in inspect.signature(kind).parameters}


def _evaluator(
    student: Settings, base: Settings, name: str, folder: CocoFolder, part: Part
) -> Settings:
    own = student.get(f"{name}_evaluator")
    is_coco = isinstance(own, dict) and type_name(own) == "CocoMetric"
    evaluator: Settings = copy.deepcopy((student if is_coco else base)[f"{name}_evaluator"])
    evaluator["ann_file"] = (folder.root / part.annotations).as_posix()
    return evaluator


def _repetitions(dataset: Settings) -> int:
    """Number of times that an epoch sees each image (RepeatDataset)."""
    inner = dataset.get("dataset")
    return dataset.get("times", 1) * (_repetitions(inner) if isinstance(inner, dict) else 1)


def _read_config_data(cfg: Settings, name: str, copies: Path) -> Data:
    keys = [f"{part}_{what}" for part in PARTS for what in ("dataloader", "evaluator")]
    settings = {key: copy.deepcopy(cfg[key]) for key in keys if cfg.get(key)}
    lacking = [key for key in ("train_dataloader", "val_dataloader") if key not in settings]
    if lacking:
        raise DataError(f"{name} has no {' and no '.join(lacking)}; give --data a COCO folder")
    for what in ("dataloader", "evaluator"):
        if f"val_{what}" in settings:
            settings.setdefault(f"test_{what}", copy.deepcopy(settings[f"val_{what}"]))
    datasets = [
        dataset
        for part in PARTS
        for dataset in dataset_config.unwrap(settings[f"{part}_dataloader"]["dataset"])
    ]
    check = LoaderCheck(copies)
    classes = _read_classes(datasets[0], check, name)
    for dataset in datasets:
        named = dataset_config.named_classes(dataset)
        if named and named != classes:
            raise DataError(
                f"all data sets need the same metainfo.classes in the same order, found "
                f"{list(classes)} and {list(named)} in {name}"
            )
        if classes != dataset_config.type_classes(dataset):
            dataset["metainfo"] = dict(dataset.get("metainfo") or {}, classes=classes)
    return Data(
        settings, classes, None, [f"data: that of {name}", *_check(check, settings, classes)]
    )


def _check(check: LoaderCheck, settings: Settings, classes: tuple[str, ...]) -> list[str]:
    """Check all loaders and evaluators; returns what was found, in sentences."""
    for part in PARTS:
        check.check(settings, part, classes)
    return [f"data: {remark}" for remark in check.remarks]


def _read_classes(dataset: Settings, check: LoaderCheck, name: str) -> tuple[str, ...]:
    """The classes of ``metainfo``, else of the annotation file, else of the dataset's type."""
    named = dataset_config.named_classes(dataset)
    if named:
        return named
    found = check.read(dataset, "train")
    known = found.classes if found is not None else dataset_config.type_classes(dataset)
    if not known:
        raise DataError(f"{name} does not say its classes; set metainfo=dict(classes=(...)) there")
    return known
