"""Annotations and images are found by their usual names; what is missing is told."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from kd_det.pairing.coco_folder import DataError, find_coco_folder

BOX = dict(id=1, image_id=0, category_id=1, bbox=[0, 0, 4, 4], area=16, iscrowd=0)
CLASSES = [dict(id=3, name="pear"), dict(id=1, name="apple")]


def write(root: Path, file: str, image: str, **changes: object) -> None:
    """One image with one box."""
    data = dict(
        images=[dict(id=0, file_name=Path(image).name, width=8, height=8)],
        annotations=[dict(BOX)],
        categories=CLASSES,
    )
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(json.dumps({**data, **changes}))
    (root / image).parent.mkdir(parents=True, exist_ok=True)
    (root / image).write_bytes(cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes())


@pytest.mark.parametrize(
    ("train", "train_images", "val", "val_images"),
    [
        ("annotations/instances_train2017.json", "train2017", "annotations/instances_val2017.json",
         "val2017"),
        ("annotations/instances_train.json", "train", "annotations/instances_val.json", "val"),
        ("annotations/train.json", "images/train", "annotations/val.json", "images/val"),
        ("annotations/train.json", "images", "annotations/val.json", "images"),
        ("annotations/train.json", "", "annotations/val.json", ""),
        ("train/_annotations.coco.json", "train", "valid/_annotations.coco.json", "valid"),
    ],
)  # fmt: skip
def test_usual_layouts_are_found(tmp_path, train, train_images, val, val_images):
    write(tmp_path, train, f"./{train_images}/a.jpg")
    write(tmp_path, val, f"./{val_images}/b.jpg")
    found = find_coco_folder(tmp_path)
    assert (found.train.annotations, found.train.images) == (train, train_images)
    assert (found.val.annotations, found.val.images) == (val, val_images)
    for part in (found.train, found.val):
        # The order of the file is that of mmdet's labels, whatever the ids.
        assert part.count == 1 and part.found.classes == ("pear", "apple")
        assert not part.found.has_masks and not part.found.repairs
    assert found.groups == ()


def test_an_image_may_name_its_folder(tmp_path):
    entry = dict(id=0, file_name="photos/a.jpg", width=8, height=8)
    for part in ("train", "val"):
        write(tmp_path, f"annotations/{part}.json", "photos/a.jpg", images=[entry])
    assert find_coco_folder(tmp_path).train.images == ""


@pytest.mark.parametrize(
    ("categories", "classes", "groups"),
    [
        # The group that Roboflow writes is no class.
        ("fruit/none apple/fruit pear/fruit", ("apple", "pear"), ("fruit",)),
        # A class without objects stays one. COCO has a supercategory "person" over "person".
        ("apple/fruit person/person pear/fruit", ("apple", "person", "pear"), ()),
    ],
)
def test_groups_are_no_classes(tmp_path, categories, classes, groups):
    pairs = [word.split("/") for word in categories.split()]
    entries = [dict(id=i, name=name, supercategory=above) for i, (name, above) in enumerate(pairs)]
    for part in ("train", "val"):
        write(tmp_path, f"annotations/{part}.json", f"{part}/a.jpg", categories=entries)
    found = find_coco_folder(tmp_path)
    assert found.train.found.classes == classes and found.groups == groups


def test_masks_count_if_all_annotations_have_them(tmp_path):
    polygon = dict(BOX, segmentation=[[0, 0, 4, 0, 4, 4]])
    for part, objects in (
        ("train", [polygon]),
        ("val", [polygon, dict(BOX, id=2, segmentation=[])]),
    ):
        write(tmp_path, f"annotations/{part}.json", f"{part}/a.jpg", annotations=objects)
    found = find_coco_folder(tmp_path)
    assert found.train.found.has_masks and not found.val.found.has_masks


def test_the_folder_is_that_with_most_images(tmp_path):
    """The first one may be missing, or lie at another place as well."""
    entries = [dict(id=i, file_name=f"{i}.jpg", width=8, height=8) for i in range(3)]
    for part in ("train", "val"):
        file = f"annotations/{part}.json"
        for image in ("train/0.jpg", *(f"images/{i}.jpg" for i in range(3))):
            write(tmp_path, file, image, images=entries)
    assert find_coco_folder(tmp_path).train.images == "images"
    (tmp_path / "images" / "0.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 3 images are missing in \S*/images: 0\.jpg"):
        find_coco_folder(tmp_path)


def test_absent_or_several_annotations_are_listed(tmp_path):
    write(tmp_path, "annotations/train.json", "train/a.jpg")
    write(tmp_path, "labels/check.json", "val/a.jpg")
    expected = (
        r"no annotation file for val: looked for annotations/instances_val2017.json, .*"
        "valid/_annotations.coco.json; found annotations/train.json, labels/check.json"
    )
    with pytest.raises(DataError, match=expected):
        find_coco_folder(tmp_path)
    write(tmp_path, "annotations/instances_train.json", "train/a.jpg")
    expected = "several .* for train: annotations/instances_train.json, annotations/train.json; "
    with pytest.raises(DataError, match=expected):
        find_coco_folder(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            dict(images=[dict(id=0, file_name="gone.jpg")]),
            r"1 of 1 images are missing in \S*/train, \S*/images/train, .*: gone.jpg",
        ),
        (dict(categories=CLASSES[::-1]), r"same order, found \['apple', 'pear'\] in .*train.json "),
    ],
)
def test_wrong_content_is_told(tmp_path, changes, message):
    write(tmp_path, "annotations/train.json", "train/a.jpg", **changes)
    write(tmp_path, "annotations/val.json", "val/a.jpg")
    with pytest.raises(DataError, match=message):
        find_coco_folder(tmp_path)


@pytest.mark.parametrize(
    "files,said",
    [
        ([], "it is empty"),
        (["a.jpg", "b.PNG"], "2 images without annotations"),
        (["data.yaml", "images/a.jpg", "labels/a.txt"], "YOLO"),
        (["JPEGImages/a.jpg", "Annotations/a.xml"], "Pascal VOC"),
        (["export.zip"], "unpacked"),
    ],
)
def test_a_folder_without_json_says_what_it_is(tmp_path: Path, files: list[str], said: str):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=said) as caught:
        find_coco_folder(tmp_path)
    assert "Rename" not in str(caught.value)
    with pytest.raises(NotADirectoryError, match=r"or a config of mmdet, found no .*/nothing"):
        find_coco_folder(tmp_path / "nothing")
