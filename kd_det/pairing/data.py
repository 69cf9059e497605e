"""Put the user's data into a config: from a folder, or as a config of mmdet names it."""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kd_det.datasets import dataset_config
from kd_det.datasets.coco import Annotations, DataError
from kd_det.datasets.inspection import SCALE
from kd_det.datasets.loader_check import LoaderCheck
from kd_det.datasets.prepared import PreparedData, prepare
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
    data: str | PreparedData | None,
    student: Settings,
    base: Settings,
    work_dir: str | Path = "work_dirs",
) -> Data:
    """Data loaders and evaluators for a pair.

    Args:
        data: A folder of labelled images, by its path or prepared already, a config of mmdet with
            data loaders, or None for those that the student's config has.
        student: The student's config, whose pipelines a folder's images go through.
        base: A config of COCO, for what the student's lacks.
        work_dir: Where converted annotations and repaired copies go, if any are needed; the data
            is never written.

    Raises:
        DataError: If it cannot be found, is not valid, or lacks what the student needs.
    """
    copies = Path(work_dir) / "config"
    if data is None:
        return _read_config_data(student, "the student's config", copies)
    if isinstance(data, str) and is_config(data):
        return _read_config_data(read_config(data), data, copies)
    if isinstance(data, str):
        data = prepare(Path(data), Path(work_dir), image_scale(student))
    return _read_folder_data(data, student, base, copies)


def is_config(data: str) -> bool:
    """Whether ``--data`` names a config of mmdet, and no folder."""
    return "::" in data or data.endswith(".py")


def image_scale(student: Settings) -> tuple[int, int]:
    """The sides that the student's config resizes images within when it evaluates."""
    for transform in nested_dicts(student.get("test_dataloader") or student.get("val_dataloader")):
        scale = transform.get("scale")
        if isinstance(scale, (list, tuple)) and all(isinstance(side, int) for side in scale):
            return (max(scale), min(scale))
    return SCALE


def _read_folder_data(data: PreparedData, student: Settings, base: Settings, copies: Path) -> Data:
    data.require_no_errors()
    classes = data.found.classes
    settings: Settings = {}
    for name, part in zip(PARTS, ("train", "val", "val")):
        key = f"{name}_dataloader"
        loader = copy.deepcopy(student.get(key) or base[key])
        loader["dataset"] = _join(loader["dataset"])
        datasets = list(dataset_config.unwrap(loader["dataset"]))
        if len(datasets) != 1:
            raise DataError(
                f"the student's {key} joins {len(datasets)} data sets with pipelines of their own, "
                f"and --data {data.root} is one; give a config of mmdet as --data"
            )
        _point(datasets[0], data.root, data.annotations[part], classes)
        settings[key] = loader
        if name != "train":
            path = data.annotations[part].path.as_posix()
            settings[f"{name}_evaluator"] = _evaluator(student, base, name, path)
    known = {part: data.annotations[part] for part in ("train", "val")}
    decisions = [
        f"data: {len(found.data['images'])} images of {found.path} in {found.images}, to {what}"
        for found, what in zip(known.values(), ("learn from", "evaluate on"))
    ]
    decisions += [f"data: {remark}" for remark in data.remarks]
    # Their warnings are told above.
    known = {part: replace(found, warnings=[]) for part, found in known.items()}
    decisions += _check(LoaderCheck(copies, known), settings, classes)
    images = len(known["train"].data["images"])
    repetitions = _repetitions(settings["train_dataloader"]["dataset"])
    return Data(settings, classes, images * repetitions, decisions)


def drop_semantic_head(detector: Settings, data: Data) -> list[str]:
    """Take HTC's branch for semantic segmentation out of a config if the data have no maps.

    Returns:
        What was decided, in sentences.
    """
    heads = (detector.get("model") or {}).get("roi_head") or {}
    learnt = nested_dicts(data.settings["train_dataloader"])
    if not heads.get("semantic_head") or any(part.get("with_seg") for part in learnt):
        return []
    heads.update(semantic_head=None, semantic_roi_extractor=None)
    return [
        "the data have no semantic segmentation maps: the detector goes without its semantic_head"
    ]


def _join(dataset: Settings) -> Settings:
    """One data set in place of several with equal pipelines, which are joined in a config."""
    parts = dataset.get("datasets")
    if parts is None:
        return {k: _join(v) if k == "dataset" else v for k, v in dataset.items()}
    pipelines = [part.get("pipeline") for part in parts]
    joined: Settings = parts[0] if pipelines.count(pipelines[0]) == len(parts) else dataset
    return joined


def _point(dataset: Settings, root: Path, found: Annotations, classes: tuple[str, ...]) -> None:
    """Let a data set's config name another folder; its pipeline stays, but for where it reads."""
    from mmdet.datasets import CocoDataset

    for part in nested_dicts(dataset):
        if part.get("backend_args"):  # of a store elsewhere, as Petrel
            part["backend_args"] = None
        if part.get("with_seg"):  # semantic segmentation maps, which no folder of boxes has
            part["with_seg"] = False
    _drop_unknown(dataset, CocoDataset)  # of another kind of dataset
    for key in ("data_prefix", "metainfo", "proposal_file"):
        dataset.pop(key, None)
    images = _inside(root, found.images)
    dataset.update(
        type="CocoDataset",
        data_root=f"{root.as_posix()}/",
        ann_file=_inside(root, found.path),
        data_prefix=dict(img=f"{images}/" if images else ""),
        metainfo=dict(classes=classes),
    )


def _inside(root: Path, path: Path) -> str:
    """A path relative to the root, ``''`` for the root itself; as it is if it lies elsewhere."""
    try:
        inside = path.relative_to(root).as_posix()
    except ValueError:
        return path.as_posix()
    return "" if inside == "." else inside


def _drop_unknown(part: Settings, kind: type) -> None:
    """Take what is no argument of ``kind`` or of its bases out of a config."""
    known = {name for each in kind.__mro__ for name in inspect.signature(each).parameters}
    for key in part.keys() - known - {"type", "_scope_"}:
        del part[key]


def _evaluator(student: Settings, base: Settings, name: str, path: str) -> Settings:
    from mmdet.evaluation import CocoMetric

    own = student.get(f"{name}_evaluator")
    is_coco = isinstance(own, dict) and type_name(own) == "CocoMetric"
    evaluator: Settings = copy.deepcopy((student if is_coco else base)[f"{name}_evaluator"])
    _drop_unknown(evaluator, CocoMetric)  # of the metric that a config of mmdet was derived from
    evaluator["ann_file"] = path
    if evaluator.get("backend_args"):
        evaluator["backend_args"] = None
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
        raise DataError(
            f"{name} has no {' and no '.join(lacking)}; give --data a folder of labelled images"
        )
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
