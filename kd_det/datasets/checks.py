"""Check what mmdet's COCO datasets would make of an annotation file, before anything is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.fileio import list_from_file
from mmengine.registry import DefaultScope

from kd_det.datasets.coco import Annotations, DataError


def type_name(config: Mapping[str, Any]) -> str:
    """Name of a config's ``type``, which is text or, in new-style configs, a class."""
    kind = config.get("type")
    return str(getattr(kind, "__name__", kind)).rsplit(".", 1)[-1]


def class_of(dataset: Mapping[str, Any]) -> type | None:
    """The class of a dataset's config; None if mmdet does not know it."""
    from mmdet.registry import DATASETS

    kind = dataset.get("type")
    if isinstance(kind, type):
        return kind
    with DefaultScope.overwrite_default_scope("mmdet"):
        found: type | None = DATASETS.get(str(kind))
    return found


def type_classes(dataset: Mapping[str, Any]) -> tuple[str, ...]:
    """What mmdet takes where a dataset's config names no classes."""
    return tuple(getattr(class_of(dataset), "METAINFO", {}).get("classes", ()))


def named_classes(dataset: Mapping[str, Any]) -> tuple[str, ...]:
    """The classes that ``metainfo`` names, or the lines of the file that it names."""
    named = (dataset.get("metainfo") or {}).get("classes") or ()
    return tuple(str(each) for each in (list_from_file(named) if isinstance(named, str) else named))


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
    reads = getattr(class_of(dataset), "load_data_list", None)
    return path if reads is CocoDataset.load_data_list else None


def image_folder(dataset: Mapping[str, Any]) -> Path:
    """The folder of a COCO dataset's images."""
    return Path(dataset.get("data_root") or "", (dataset.get("data_prefix") or {}).get("img", ""))


def check_dataset(dataset: Mapping[str, Any], found: Annotations, classes: Sequence[str]) -> None:
    """Check that mmdet gives each object its label, mask and place in training.

    Args:
        dataset: The dataset's config.
        found: Its annotations.
        classes: Names in the order of the labels.

    Raises:
        DataError: If not.
    """
    check_labels(found, classes)
    lacking = sum(not a.get("segmentation") for a in found.data["annotations"])
    if lacking and any(t.get("with_mask") for t in dataset.get("pipeline") or ()):
        raise DataError(
            f"the student learns masks, and {lacking} of {len(found.data['annotations'])} "
            f"annotations of {found.path} have no 'segmentation'; take a student without a mask "
            "head, as a Faster R-CNN (the teacher may have one)"
        )
    _check_filter(dataset, found, classes)


def check_labels(found: Annotations, classes: Sequence[str]) -> None:
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
