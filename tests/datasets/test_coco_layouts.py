"""Annotations and images are found by their usual names; what is missing is told."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from kd_det.datasets.coco import DataError
from kd_det.datasets.formats import DetectionSet, read_set
from kd_det.datasets.inspection import inspect

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
    found = read_set(tmp_path)
    assert places(found) == [(train, train_images), (val, val_images)]
    # The order of the file is that of mmdet's labels, whatever the ids.
    assert found.classes == ("pear", "apple")
    # Both can be trained on as they are.
    assert not any(part.converted for part in found.parts.values())


def places(found: DetectionSet) -> list[tuple[str, str]]:
    return [(part.source, part.images) for part in found.parts.values()]


def test_an_image_may_name_its_folder(tmp_path):
    entry = dict(id=0, file_name="photos/a.jpg", width=8, height=8)
    for part in ("train", "val"):
        write(tmp_path, f"annotations/{part}.json", "photos/a.jpg", images=[entry])
    assert read_set(tmp_path).parts["train"].images == ""


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
    found = read_set(tmp_path)
    assert found.classes == classes
    assert [n for n in found.notes if "group classes" in n] == [
        f"categories that only group classes are left out: {group}" for group in groups
    ]


def test_masks_count_if_all_annotations_have_them(tmp_path):
    polygon = dict(BOX, segmentation=[[0, 0, 4, 0, 4, 4]])
    for part, objects in (
        ("train", [polygon]),
        ("val", [polygon, dict(BOX, id=2, segmentation=[])]),
    ):
        write(tmp_path, f"annotations/{part}.json", f"{part}/a.jpg", annotations=objects)
    found = inspect(read_set(tmp_path)).annotations
    assert found["train"].has_masks and not found["val"].has_masks


def test_the_folder_is_that_with_most_images(tmp_path):
    """The first one may be missing, or lie at another place as well."""
    entries = [dict(id=i, file_name=f"{i}.jpg", width=8, height=8) for i in range(3)]
    for part in ("train", "val"):
        file = f"annotations/{part}.json"
        for image in ("train/0.jpg", *(f"images/{i}.jpg" for i in range(3))):
            write(tmp_path, file, image, images=entries)
    found = read_set(tmp_path)
    assert [part.images for part in found.parts.values()] == ["images", "images"]
    (tmp_path / "images" / "0.jpg").unlink()
    # train/0.jpg may be the one to learn from, and is never taken to evaluate on.
    (fault,) = inspect(read_set(tmp_path)).errors
    assert fault.where == "val (annotations/val.json)" and fault.items == ("0.jpg",)


def test_a_file_of_no_part_may_be_the_one_to_evaluate_on(tmp_path):
    write(tmp_path, "annotations/train.json", "train/a.jpg")
    write(tmp_path, "labels/check.json", "val/a.jpg")
    with pytest.raises(DataError, match=r"labels/check\.json, whose name says no part. Name it wi"):
        read_set(tmp_path)
    found = read_set(tmp_path, "annotations/train.json", "labels/check.json")
    assert places(found) == [("annotations/train.json", "train"), ("labels/check.json", "val")]


def test_several_annotation_files_are_listed(tmp_path):
    for name in ("train", "val"):
        write(tmp_path, f"annotations/{name}.json", f"{name}/a.jpg")
    write(tmp_path, "annotations/instances_train.json", "train/a.jpg")
    expected = "several .* for train: annotations/instances_train.json, annotations/train.json; "
    with pytest.raises(DataError, match=expected):
        read_set(tmp_path)


def test_a_file_without_any_of_its_images_is_refused(tmp_path):
    write(tmp_path, "annotations/train.json", "train/a.jpg", images=[dict(id=0, file_name="b.jpg")])
    write(tmp_path, "annotations/val.json", "val/a.jpg")
    with pytest.raises(DataError, match=r"train.json names 1 images, .* folder with --images"):
        read_set(tmp_path)


def test_no_box_at_all_is_said_once(tmp_path):
    write(tmp_path, "annotations/train.json", "train/a.jpg", annotations=[])
    write(tmp_path, "annotations/val.json", "val/a.jpg")
    told = [fault.sentence for fault in inspect(read_set(tmp_path)).faults]
    assert any("no boxes at all to learn from" in each for each in told)
    assert not any("classes have no box to learn" in each for each in told)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(images=[]), "no images in it"),
        (
            dict(images=[dict(id=0, file_name="gone.jpg"), dict(id=1, file_name="train/a.jpg")]),
            "1 of 2 images are missing in ",
        ),
        (dict(categories=[*CLASSES, CLASSES[0]]), "different names, found several called pear"),
        (dict(categories=[]), "no categories in it"),
        (dict(images=[dict(id=0, width=8, height=8)]), "have no 'file_name'"),
        (dict(categories=[dict(id=3)]), "have no 'name'"),
    ],
)
def test_wrong_content_is_told(tmp_path, changes, message):
    write(tmp_path, "annotations/train.json", "train/a.jpg", **changes)
    write(tmp_path, "annotations/val.json", "val/a.jpg")
    assert any(message in fault.sentence for fault in inspect(read_set(tmp_path)).errors)
