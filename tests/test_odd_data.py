"""Datasets as people have them: what is handled trains, what is not is told in a sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from small import digits_config, runner

Data = dict[str, Any]


@pytest.fixture
def folder(digits: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(digits, tmp_path / "data"))


def change(folder: Path, edit: Callable[[Data], None], split: str = "train") -> None:
    path = folder / "annotations" / f"instances_{split}.json"
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))


def train(folder: Path, teacher_ckpt: Path, work_dir: Path, log: Any = None, **options: object):
    """An epoch of eight images with all losses; returns what was logged of each loss."""
    cfg = digits_config("review_nd_kd", folder, work_dir)
    cfg.model.teacher_ckpt = str(teacher_ckpt)
    cfg.train_dataloader.dataset.indices = 8
    cfg.train_cfg.val_interval = 9
    cfg.default_hooks.logger.interval = 1
    cfg.merge_from_dict(options)
    run = runner(cfg)
    if log is not None:
        run.logger.addHandler(log.handler)
    run.train()
    names = [name for name in run.message_hub.log_scalars if name.startswith("train/distill.")]
    assert len(names) == 3
    return {name: run.message_hub.get_scalar(name).data[0] for name in names}


def without_class_3(data: Data) -> None:
    third = [c["id"] for c in data["categories"] if c["name"] == "3"]
    data["annotations"] = [a for a in data["annotations"] if a["category_id"] not in third]


def without_objects_on_every_other_image(data: Data) -> None:
    bare = {image["id"] for image in data["images"][::2]}
    data["annotations"] = [a for a in data["annotations"] if a["image_id"] not in bare]


def crowds_on_every_other_image(data: Data) -> None:
    crowded = {image["id"] for image in data["images"][::2]}
    for annotation in data["annotations"]:
        annotation["iscrowd"] = int(annotation["image_id"] in crowded)


def some_boxes_without_area(data: Data) -> None:
    for annotation in data["annotations"][::3]:
        annotation["bbox"][2:] = [0, 0]
        annotation["area"] = 0


def some_boxes_outside(data: Data) -> None:
    for annotation in data["annotations"][::3]:
        annotation["bbox"][:2] = [5000, -5000]


def a_single_image(data: Data) -> None:
    data["images"] = data["images"][:1]


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


@pytest.mark.parametrize(
    "edit",
    [
        without_class_3,
        without_objects_on_every_other_image,
        crowds_on_every_other_image,
        some_boxes_without_area,
        some_boxes_outside,
        a_single_image,
        category_ids_with_gaps,
        image_ids_from_0,
    ],
)
def test_handled(folder, teacher_ckpt, tmp_path, edit):
    change(folder, edit)
    for name, values in train(folder, teacher_ckpt, tmp_path / "work").items():
        assert np.isfinite(values).all() and (values > 0).any(), name


def test_a_class_that_never_occurs_is_logged(folder, teacher_ckpt, tmp_path, caplog):
    change(folder, without_class_3)
    train(folder, teacher_ckpt, tmp_path / "work", log=caplog)
    warnings = [r.getMessage() for r in caplog.records if "were never seen" in r.getMessage()]
    assert len(warnings) == 1 and "3" in warnings[0]


def test_grey_images_are_read_as_others(folder, teacher_ckpt, tmp_path):
    for path in (folder / "train").iterdir():
        cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    for name, values in train(folder, teacher_ckpt, tmp_path / "work").items():
        assert np.isfinite(values).all() and (values > 0).all(), name


def test_without_any_object_there_is_background_alone(folder, teacher_ckpt, tmp_path, caplog):
    change(folder, lambda data: data["annotations"].clear())
    losses = train(folder, teacher_ckpt, tmp_path / "work", log=caplog)
    assert all(np.isfinite(values).all() for values in losses.values())
    assert "10 of 11 classes were never seen" in caplog.text


def test_a_teacher_of_other_class_order_is_an_error(folder, teacher_ckpt, tmp_path, caplog):
    import torch

    state = torch.load(teacher_ckpt, weights_only=True)
    state["meta"] = dict(dataset_meta=dict(classes=tuple("1023456789")))
    torch.save(state, tmp_path / "teacher.pth")
    with pytest.raises(ValueError, match=r"classes are in another order.*'1', '0'.*'0', '1'"):
        train(folder, tmp_path / "teacher.pth", tmp_path / "work")

    state["meta"] = dict(CLASSES=[f"digit {i}" for i in range(10)])  # as mmdet 2 wrote them
    torch.save(state, tmp_path / "teacher.pth")
    train(folder, tmp_path / "teacher.pth", tmp_path / "other", log=caplog)
    assert "the teacher was trained on classes of other names" in caplog.text
