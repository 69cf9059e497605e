"""Datasets as people have them: what is handled trains, what is not is told in a sentence."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from small import IMAGE_SIZE, digits_config, edit_annotations, runner

from kd_det.datasets.coco import DataError
from kd_det.pairing.data import read_data
from kd_det.pairing.text import read_config

Data = dict[str, Any]


@pytest.fixture(scope="module")
def stock() -> Data:
    return read_config("mmdet::_base_/datasets/coco_detection.py")


@pytest.fixture
def train(stock: Data, teacher_ckpt: Path, tmp_path: Path) -> Callable[..., dict[str, list[float]]]:
    """An epoch of eight images with all losses; returns what was logged of each loss.

    Images go through mmdet's own pipelines and filters, as ``tools/distill.py`` lets them.
    """

    def trained(
        folder: Path, teacher: Path = teacher_ckpt, log: Any = None, **dataset: object
    ) -> dict[str, list[float]]:
        cfg = digits_config("review_nd_kd", folder, tmp_path / f"work_{teacher.stem}")
        cfg.model.teacher_ckpt = str(teacher)
        cfg.train_cfg.val_interval = 9
        cfg.default_hooks.logger.interval = 1
        student = copy.deepcopy(stock)
        student["train_dataloader"]["dataset"].update(dataset, indices=8)
        for key, value in read_data(str(folder), student, {}, cfg.work_dir).settings.items():
            if "dataset" in value:
                value.update(batch_size=4, num_workers=0, persistent_workers=False)
                resize = [t for t in value["dataset"]["pipeline"] if t["type"] == "Resize"]
                resize[0]["scale"] = (IMAGE_SIZE, IMAGE_SIZE)
            cfg[key] = value
        run = runner(cfg)
        if log is not None:
            run.logger.addHandler(log.handler)
        run.train()
        names = [name for name in run.message_hub.log_scalars if name.startswith("train/distill.")]
        assert len(names) == 3
        return {name: run.message_hub.get_scalar(name).data[0] for name in names}

    return trained


def without_class_3(data: Data) -> None:
    third = [c["id"] for c in data["categories"] if c["name"] == "3"]
    data["annotations"] = [a for a in data["annotations"] if a["category_id"] not in third]


def without_objects_on_every_third_image(data: Data) -> None:
    bare = {image["id"] for image in data["images"][::3]}
    data["annotations"] = [a for a in data["annotations"] if a["image_id"] not in bare]


def crowds_on_every_third_image(data: Data) -> None:
    crowded = {image["id"] for image in data["images"][1::3]}
    for annotation in data["annotations"]:
        annotation["iscrowd"] = int(annotation["image_id"] in crowded)


def some_boxes_without_area(data: Data) -> None:
    for annotation in data["annotations"][::5]:
        annotation["bbox"][2:] = [0, 0]
        annotation["area"] = 0


def some_boxes_outside(data: Data) -> None:
    for annotation in data["annotations"][1::5]:
        annotation["bbox"][:2] = [5000, -5000]


def category_ids_with_gaps(data: Data) -> None:
    for category in data["categories"]:
        category["id"] = category["id"] * 10 + 7
    for annotation in data["annotations"]:
        annotation["category_id"] = annotation["category_id"] * 10 + 7


def image_ids_from_0(data: Data) -> None:
    ids = {image["id"]: i for i, image in enumerate(data["images"])}
    for image in data["images"]:
        image["id"] = ids[image["id"]]
    for annotation in data["annotations"]:
        annotation["image_id"] = ids[annotation["image_id"]]


def a_single_image(data: Data) -> None:
    data["images"] = data["images"][:1]
    kept = data["images"][0]["id"]
    data["annotations"] = [a for a in data["annotations"] if a["image_id"] == kept]


def unlike_coco(data: Data) -> None:
    """As tools write it that nobody compared with COCO's own files."""
    for category in data["categories"]:
        category.update(id=str(category["id"]), name=int(category["name"]))
    for image in data["images"]:
        image.pop("width")
        image["id"] = str(image["id"])
    for annotation in data["annotations"]:
        for key in ("id", "area", "iscrowd"):
            annotation.pop(key)
        annotation["bbox"] = [str(value) for value in annotation["bbox"]]


@pytest.mark.parametrize(
    "edits",
    [
        [without_class_3, some_boxes_without_area, some_boxes_outside, category_ids_with_gaps],
        [without_objects_on_every_third_image, crowds_on_every_third_image, image_ids_from_0],
        [a_single_image, unlike_coco],
    ],
)
def test_handled(folder, train, edits, caplog):
    for edit in edits:
        edit_annotations(folder, edit, "train")
    for path in (folder / "train").glob("*0.jpg"):  # some are grey
        cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    for name, values in train(folder, log=caplog).items():
        assert np.isfinite(values).all() and (values > 0).any(), name
    if without_class_3 in edits:
        (warning,) = [m for m in caplog.messages if "were never seen" in m]
        assert "3" in warning


def test_without_any_object_there_is_background_alone(folder, train, caplog):
    edit_annotations(folder, lambda data: data["annotations"].clear(), "train")
    with pytest.raises(DataError, match="has no object of any class"):
        train(folder)  # mmdet's filter leaves no image
    losses = train(folder, log=caplog, filter_cfg=None)
    assert all(np.isfinite(values).all() for values in losses.values())
    assert "10 of 11 classes were never seen" in caplog.text


def test_a_teacher_of_other_class_order_is_an_error(folder, train, teacher_ckpt, tmp_path, caplog):
    state = torch.load(teacher_ckpt, weights_only=True)
    state["meta"] = dict(dataset_meta=dict(classes=tuple("1023456789")))
    torch.save(state, tmp_path / "teacher.pth")
    with pytest.raises(ValueError, match=r"classes are in another order.*'1', '0'.*'0', '1'"):
        train(folder, tmp_path / "teacher.pth")

    state["meta"] = dict(CLASSES=[f"digit {i}" for i in range(10)])  # as mmdet 2 wrote them
    torch.save(state, tmp_path / "teacher.pth")
    train(folder, tmp_path / "teacher.pth", log=caplog)
    assert "the teacher was trained on classes of other names" in caplog.text
