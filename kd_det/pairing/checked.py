"""Check all annotation files that a config's loaders and evaluators read, and repair copies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kd_det import config_files
from kd_det.datasets import checks
from kd_det.datasets.coco import Annotations, DataError
from kd_det.datasets.coco_check import check_annotations

Settings = dict[str, Any]
LOADERS = ("train", "val", "test")


class Checker:
    """Reads each annotation file once, and writes a repaired copy where one is needed.

    Args:
        work_dir: Copies go into its folder ``config``.
        known: Files that were checked already, by part.

    Attributes:
        decisions: What was repaired, and what may be wrong, in sentences.
    """

    def __init__(self, work_dir: Path, known: Mapping[str, Annotations] | None = None) -> None:
        self.decisions: list[str] = []
        self._work_dir = work_dir
        self._files: dict[tuple[Path, Path, bool], Annotations] = {}
        self._copies: dict[int, Path] = {}
        for part, found in (known or {}).items():
            self._keep(found, part)

    def read(self, dataset: Mapping[str, Any], part: str) -> Annotations | None:
        """The checked annotations of a local COCO dataset; None for any other."""
        path = checks.annotation_file(dataset)
        return None if path is None else self._read(path, checks.image_folder(dataset), part)

    def check(self, settings: Settings, classes: tuple[str, ...]) -> None:
        """Check loaders and evaluators, and let them read the repaired copies.

        Args:
            settings: Top-level keys of a config, changed in place.
            classes: Names in the order of the labels.

        Raises:
            DataError: If a file is not valid, or lacks what its dataset needs.
            OSError: If a copy cannot be written.
        """
        for part in LOADERS:
            datasets = list(config_files.datasets(settings[f"{part}_dataloader"]["dataset"]))
            for dataset in datasets:
                found = self.read(dataset, part)
                if found is not None:
                    checks.check_dataset(dataset, found, classes)
                    dataset["ann_file"] = self._copy(found, part) or dataset["ann_file"]
            for evaluator in _coco_metrics(settings.get(f"{part}_evaluator")):
                path, images = Path(evaluator["ann_file"]), checks.image_folder(datasets[0])
                if "://" in evaluator["ann_file"] or not path.is_file():
                    continue
                found = self._read(path, images, part)
                checks.check_labels(found, classes)
                _require_masks(evaluator, found, part)
                evaluator["ann_file"] = self._copy(found, part) or evaluator["ann_file"]

    def _read(self, path: Path, images: Path, part: str) -> Annotations:
        key = (path.resolve(), images.resolve(), part != "train")
        if key not in self._files:
            evaluated, labelled = part != "train", part != "test"
            found = check_annotations(path, [images], evaluated=evaluated, labelled=labelled)
            self._keep(found, part)
        return self._files[key]

    def _keep(self, found: Annotations, part: str) -> None:
        self._files[found.path.resolve(), found.images.resolve(), part != "train"] = found
        self.decisions += [f"data: {warning}" for warning in found.warnings]

    def _copy(self, found: Annotations, part: str) -> str | None:
        """Absolute path of a file's repaired copy; None where none is needed."""
        if not found.repairs:
            return None
        if id(found) not in self._copies:
            number = len(self._copies)
            name = f"{part}{number or ''}_annotations.json"
            path = (self._work_dir / "config" / name).absolute()
            found.write(path)
            self._copies[id(found)] = path
            self.decisions.append(
                f"data: {found.path} was read with repairs: {found.describe_repairs()}; the "
                f"repaired copy is {path}"
            )
        return str(self._copies[id(found)])


def _coco_metrics(evaluators: Any) -> Iterator[Settings]:
    """Those of a part's evaluators that read an annotation file in COCO's format."""
    for each in evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]:
        is_coco = isinstance(each, dict) and checks.type_name(each) == "CocoMetric"
        if is_coco and each.get("ann_file"):
            yield each


def _require_masks(evaluator: Settings, found: Annotations, part: str) -> None:
    metrics = evaluator.get("metric") or "bbox"
    if "segm" in ([metrics] if isinstance(metrics, str) else metrics) and not found.has_masks:
        raise DataError(
            f"{part}_evaluator compares masks ('segm'), and not every annotation of {found.path} "
            "has a 'segmentation'; take a student without a mask head, or metric='bbox'"
        )
