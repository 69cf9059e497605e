"""Read what a dataset's config names: its class, classes, annotation file and images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.fileio import list_from_file
from mmengine.registry import DefaultScope

from kd_det.registry import as_list


def unwrap(dataset: Any) -> Iterator[Any]:
    """The datasets inside wrappers (repeated, concatenated, class-balanced)."""
    inner = dataset.get("dataset") or dataset.get("datasets")
    if inner is None:
        yield dataset
    for each in as_list(inner):
        yield from unwrap(each)


def read_class(dataset: Mapping[str, Any]) -> type | None:
    """The class of a dataset's config; None if mmdet does not know it."""
    from mmdet.registry import DATASETS

    kind = dataset.get("type")
    if isinstance(kind, type):
        return kind
    with DefaultScope.overwrite_default_scope("mmdet"):
        found: type | None = DATASETS.get(str(kind))
    return found


def read_classes(dataset: Mapping[str, Any]) -> tuple[str, ...]:
    """The classes of ``metainfo``, or of the file that it names; those of the type if it has none.

    An empty tuple if the classes are unknown.
    """
    return named_classes(dataset) or type_classes(dataset)


def named_classes(dataset: Mapping[str, Any]) -> tuple[str, ...]:
    """The classes that ``metainfo`` names, or the lines of the file that it names."""
    named = (dataset.get("metainfo") or {}).get("classes") or ()
    return tuple(str(each) for each in (list_from_file(named) if isinstance(named, str) else named))


def type_classes(dataset: Mapping[str, Any]) -> tuple[str, ...]:
    """The classes that mmdet takes where a dataset's config names none."""
    return tuple(getattr(read_class(dataset), "METAINFO", {}).get("classes", ()))


def is_local(dataset: Mapping[str, Any]) -> bool:
    """Whether a dataset lies on a file system."""
    backend = (dataset.get("backend_args") or {}).get("backend", "local")
    return backend == "local" and "://" not in str(dataset.get("data_root"))


def annotation_file(dataset: Mapping[str, Any]) -> Path | None:
    """The file that mmdet's ``CocoDataset`` would read; None for other datasets or no file."""
    from mmdet.datasets import CocoDataset

    if not dataset.get("ann_file") or not is_local(dataset):
        return None
    path = Path(dataset.get("data_root") or "", dataset["ann_file"])
    if not path.is_file():
        return None
    # LVIS and others derive from CocoDataset, and read files and number labels in another way.
    reads = getattr(read_class(dataset), "load_data_list", None)
    return path if reads is CocoDataset.load_data_list else None


def image_folder(dataset: Mapping[str, Any]) -> Path:
    """The folder of a COCO dataset's images."""
    return Path(dataset.get("data_root") or "", (dataset.get("data_prefix") or {}).get("img", ""))
