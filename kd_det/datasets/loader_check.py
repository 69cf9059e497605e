"""Check what mmdet's loaders and evaluators would make of annotation files, before it builds any.

Files are checked entry by entry (:mod:`kd_det.datasets.coco_entries`); here they are compared with
the dataset or evaluator that reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kd_det.datasets import dataset_config
from kd_det.datasets.coco import Annotations, DataError
from kd_det.datasets.coco_entries import check_annotations
from kd_det.registry import as_list, type_name


class LoaderCheck:
    """Checks loaders and evaluators, and reads each annotation file once.

    Args:
        copies: Where repaired copies of files go. Without it, a file that needs one is refused.
        known: Files that were checked already, by part.

    Attributes:
        remarks: What was repaired, and what may be wrong, in sentences.
    """

    def __init__(
        self, copies: Path | None = None, known: Mapping[str, Annotations] | None = None
    ) -> None:
        self.remarks: list[str] = []
        self._copies = copies
        self._files: dict[tuple[Path, Path, bool], Annotations] = {}
        self._written: dict[int, Path] = {}
        for part, found in (known or {}).items():
            self._keep(found, part)

    def read(self, dataset: Mapping[str, Any], part: str) -> Annotations | None:
        """The checked annotations of a local COCO dataset; None for any other."""
        path = dataset_config.annotation_file(dataset)
        return None if path is None else self._read(path, dataset, part)

    def check(
        self, cfg: Mapping[str, Any], part: str, classes: Sequence[str] | None = None
    ) -> None:
        """Check loader and evaluator of a part, and let them read repaired copies.

        Args:
            cfg: A config, or its data loaders and evaluators; changed where copies are written.
            part: ``'train'``, ``'val'`` or ``'test'``.
            classes: Names in the order of the labels; None for those of each dataset.

        Raises:
            DataError: If a file is not valid, or lacks what its dataset or evaluator needs.
            OSError: If a copy cannot be written.
        """
        datasets = list(dataset_config.unwrap(cfg[f"{part}_dataloader"]["dataset"]))
        for dataset in datasets:
            found = self.read(dataset, part)
            if found is not None:
                names = classes or dataset_config.read_classes(dataset)
                _check_dataset(dataset, found, names)
                dataset["ann_file"] = self._readable(found, part) or dataset["ann_file"]
        for evaluator in _coco_metrics(cfg.get(f"{part}_evaluator")):
            path = Path(evaluator["ann_file"])
            if "://" not in evaluator["ann_file"] and path.is_file():
                found = self._read(path, datasets[0], part)
                _check_labels(found, classes or dataset_config.read_classes(datasets[0]))
                _check_masks(evaluator, found, part)
                evaluator["ann_file"] = self._readable(found, part) or evaluator["ann_file"]

    def _read(self, path: Path, dataset: Mapping[str, Any], part: str) -> Annotations:
        images, evaluated = dataset_config.image_folder(dataset), part != "train"
        key = (path.resolve(), images.resolve(), evaluated)
        if key not in self._files:
            self._keep(check_annotations(path, images, evaluated, labelled=part != "test"), part)
        return self._files[key]

    def _keep(self, found: Annotations, part: str) -> None:
        self._files[found.path.resolve(), found.images.resolve(), part != "train"] = found
        self.remarks += [warning.sentence for warning in found.warnings]

    def _readable(self, found: Annotations, part: str) -> str | None:
        """Absolute path of a file's repaired copy; None where the file can be read as it is."""
        required = found.describe_repairs(only_required=True)
        if self._copies is None and required:
            raise DataError(
                f"{found.path} is not as mmdet needs it: {required}; kd-det distill writes "
                "a repaired copy into config/ of its work directory"
            )
        if self._copies is None or not found.repairs:
            return None
        if id(found) not in self._written:
            name = f"{part}{len(self._written) or ''}_annotations.json"
            path = self._written[id(found)] = (self._copies / name).absolute()
            found.write(path)
            self.remarks.append(
                f"{found.path} was read with repairs: {found.describe_repairs()}; the repaired "
                f"copy is {path}"
            )
        return str(self._written[id(found)])


def _coco_metrics(evaluators: Any) -> Iterator[dict[str, Any]]:
    """The evaluators that read an annotation file in COCO's format."""
    for each in as_list(evaluators):
        if isinstance(each, dict) and type_name(each) == "CocoMetric" and each.get("ann_file"):
            yield each


def _check_masks(evaluator: Mapping[str, Any], found: Annotations, part: str) -> None:
    if "segm" in as_list(evaluator.get("metric")) and not found.has_masks:
        raise DataError(
            f"{part}_evaluator compares masks ('segm'), and not every annotation of {found.path} "
            "has a 'segmentation'; take a student without a mask head, or metric='bbox'"
        )


def _check_dataset(dataset: Mapping[str, Any], found: Annotations, classes: Sequence[str]) -> None:
    """Raise ``DataError`` unless mmdet gives each object its label, mask and place in training."""
    _check_labels(found, classes)
    lacking = sum(not a.get("segmentation") for a in found.data["annotations"])
    if lacking and any(t.get("with_mask") for t in dataset.get("pipeline") or ()):
        raise DataError(
            f"the student learns masks, and {lacking} of {len(found.data['annotations'])} "
            f"annotations of {found.path} have no 'segmentation'; take a student without a mask "
            "head, as a Faster R-CNN (the teacher may have one)"
        )
    _check_filter(dataset, found, classes)


def _check_labels(found: Annotations, classes: Sequence[str]) -> None:
    """Raise ``DataError`` if the file's categories would get labels of other classes.

    mmdet numbers labels in the order of the categories in the file, whatever that of the classes.
    """
    names = [category["name"] for category in found.data["categories"]]
    if [name for name in names if name in classes] == list(classes):
        return
    missing = [name for name in classes if name not in names]
    if missing:
        raise DataError(
            f"{found.path} has no category {', '.join(map(repr, missing))}; expected the classes "
            f"{list(classes)}, found the categories {names}. Spell both alike"
        )
    raise DataError(
        f"mmdet numbers labels in the order of the file: expected the classes {list(classes)}, "
        f"found the categories {names} in {found.path}. Order metainfo.classes of all datasets, "
        "or the file's categories, like the other"
    )


def _check_filter(dataset: Mapping[str, Any], found: Annotations, classes: Sequence[str]) -> None:
    """Raise ``DataError`` if ``filter_cfg`` leaves out all images."""
    settings = dataset.get("filter_cfg") or {}
    if dataset.get("test_mode") or not settings:
        return
    images, least = found.data["images"], settings.get("min_size", 0)
    if settings.get("filter_empty_gt"):
        ids = {c["id"] for c in found.data["categories"] if c["name"] in classes}
        shown = {a["image_id"] for a in found.data["annotations"] if a["category_id"] in ids}
        images = [image for image in images if image["id"] in shown]
        if not images:
            raise DataError(
                f"{found.path} has no object of any class, and filter_cfg leaves out images "
                "without; add annotations, or set filter_cfg=None to learn from background alone"
            )
    if all(min(image["width"], image["height"]) < least for image in images):
        raise DataError(
            f"{found.path}: all images with objects have less than {least} pixels on a side and "
            "are left out; set filter_cfg.min_size to less"
        )
