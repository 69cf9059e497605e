"""Data reaches all loaders, with the student's pipelines, or as a config of mmdet says."""

from __future__ import annotations

import json

import pytest
from zoo import FASTER

from kd_det.pairing.coco_folder import DataError
from kd_det.pairing.data import read_data
from kd_det.pairing.methods import bases
from kd_det.pairing.text import inherited, read_config

DIGITS = tuple("0123456789")


@pytest.fixture(scope="module")
def base() -> dict:
    return inherited(bases("kd"))


def test_a_folder_reaches_all_loaders_and_the_pipelines_stay(digits, base):
    student = read_config(FASTER)
    data = read_data(str(digits), student, base)
    assert data.classes == DIGITS and data.images == 24
    for part, split in (("train", "train"), ("val", "val"), ("test", "val")):
        dataset = data.settings[f"{part}_dataloader"]["dataset"]
        assert dataset["data_root"] == f"{digits}/"
        assert dataset["ann_file"] == f"annotations/instances_{split}.json"
        assert dataset["data_prefix"] == dict(img=f"{split}/")
        assert dataset["metainfo"] == dict(classes=DIGITS)
        assert dataset["pipeline"] == student[f"{part}_dataloader"]["dataset"]["pipeline"]
    for part in ("val", "test"):
        evaluator = data.settings[f"{part}_evaluator"]
        assert evaluator["ann_file"] == f"{digits}/annotations/instances_val.json"
    assert student == read_config(FASTER)


def test_the_loaders_read_what_is_there(digits, base):
    from mmdet.registry import DATASETS
    from mmengine.registry import DefaultScope

    data = read_data(str(digits), {}, base)
    with DefaultScope.overwrite_default_scope("mmdet"):
        dataset = DATASETS.build(data.settings["train_dataloader"]["dataset"])
    assert dataset.metainfo["classes"] == DIGITS
    assert sum(len(dataset.get_data_info(i)["instances"]) for i in range(len(dataset))) > 24


def test_wrappers_of_the_student_stay(digits, base):
    student = read_config("mmdet::faster_rcnn/faster-rcnn_r18_fpn_8xb8-amp-lsj-200e_coco.py")
    dataset = read_data(str(digits), student, base).settings["train_dataloader"]["dataset"]
    assert dataset["type"] == "RepeatDataset"
    assert dataset["dataset"]["data_root"] == f"{digits}/"


def test_images_that_an_epoch_repeats_are_counted(digits, base):
    """Warm-up is a part of training: eight times longer where an epoch sees each image so often."""
    student = read_config("mmdet::faster_rcnn/faster-rcnn_r18_fpn_8xb8-amp-lsj-200e_coco.py")
    assert student["train_dataloader"]["dataset"]["times"] == 8
    assert read_data(str(digits), student, base).images == 8 * 24


def test_joined_data_sets_are_told(digits, base):
    student = read_config(FASTER)
    one = student["train_dataloader"]["dataset"]
    student["train_dataloader"]["dataset"] = dict(type="ConcatDataset", datasets=[one, dict(one)])
    with pytest.raises(DataError, match="the student's train_dataloader joins 2 data sets"):
        read_data(str(digits), student, base)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py", "learns masks, and not every annotation of "),
        ("htc/htc_r50_fpn_1x_coco.py", "student learns (masks|a map of the scene)"),
    ],
)
def test_a_student_that_needs_more_than_boxes_is_told(tmp_path, base, digits, name, message):
    folder = tmp_path / "annotations"
    folder.mkdir()
    for part in ("train", "val"):
        (tmp_path / part).symlink_to(digits / part)
        content = json.loads((digits / "annotations" / f"instances_{part}.json").read_text())
        for annotation in content["annotations"]:
            annotation.pop("segmentation", None)
        (folder / f"{part}.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        read_data(str(tmp_path), read_config(f"mmdet::{name}"), base)


def test_a_config_is_taken_as_it_is(tmp_path, base, digits):
    path = tmp_path / "fruit.py"
    path.write_text(
        f"loader = dict(dataset=dict(type='CocoDataset', data_root='{digits}',"
        "ann_file='annotations/instances_train.json'))\n"
        "train_dataloader = loader\nval_dataloader = loader\nval_evaluator = dict(type='V')\n"
    )
    data = read_data(str(path), {}, base)
    # Without metainfo mmdet would look for COCO's names in the file, and find none.
    assert data.classes == DIGITS
    for part in ("train", "val", "test"):
        assert data.settings[f"{part}_dataloader"]["dataset"]["metainfo"]["classes"] == DIGITS
    assert data.settings["test_evaluator"] == dict(type="V")


def test_without_data_it_is_the_students(base):
    student = read_config(FASTER)
    data = read_data(None, student, base)
    assert len(data.classes) == 80 and data.classes[0] == "person"
    assert data.settings["train_dataloader"] == student["train_dataloader"]


def test_classes_may_be_those_of_the_type(base):
    data = read_data("mmdet::_base_/datasets/cityscapes_detection.py", {}, base)
    assert len(data.classes) == 8 and data.classes[-1] == "bicycle"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = 1", "has no train_dataloader and no val_dataloader; give --data a COCO folder"),
        (
            "train_dataloader = val_dataloader = dict(dataset=dict(type='BaseDetDataset'))",
            "does not say its classes",
        ),
    ],
)
def test_configs_that_do_not_say_enough(tmp_path, base, text, message):
    path = tmp_path / "some.py"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_data(str(path), {}, base)
