"""Annotation files as tools leave them: what can be computed is, anything else is one sentence."""

from __future__ import annotations

import json
import locale
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from kd_det.datasets.coco import Annotations, DataError, read_annotations
from kd_det.datasets.coco_entries import check_annotations

Data = dict[str, Any]
Edit = Callable[[Data], object]
BOX = [1, 2, 3, 4]


def valid() -> Data:
    """Two images of 20 x 10 pixels, two boxes on each."""
    return dict(
        images=[dict(id=i, file_name=f"{i}.png", width=20, height=10) for i in (1, 2)],
        annotations=[
            dict(id=i, image_id=1 + i % 2, category_id=7 + i % 2, bbox=BOX, area=12, iscrowd=0)
            for i in (1, 2, 3, 4)
        ],
        categories=[dict(id=7, name="pear"), dict(id=8, name="apple")],
    )


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., Annotations]:
    """Checks the valid file after an edit, as it is read in again from what was written."""
    (tmp_path / "photos").mkdir()
    for name in ("1.png", "2.png"):
        cv2.imwrite(str(tmp_path / "photos" / name), np.zeros((10, 20, 3), np.uint8))

    def edited(edit: Edit = lambda data: None, **options: bool) -> Annotations:
        data = valid()
        edit(data)
        path = tmp_path / "some.json"
        path.write_text(json.dumps(data))
        return check_annotations(path, tmp_path / "photos", **options)

    return edited


def each(kind: str, change: Callable[[Data], object]) -> Edit:
    return lambda data: [change(entry) for entry in data[kind]]


def test_a_valid_file_is_left_alone(check):
    found = check(evaluated=True)
    assert found.data == valid() and not found.repairs and not found.warnings
    assert found.classes == ("pear", "apple") and not found.has_masks


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (each("annotations", lambda a: a.pop("area")), "4 area"),
        (each("annotations", lambda a: a.update(area=None)), "4 area"),
        (each("annotations", lambda a: a.update(area="12")), "4 area"),
        (each("annotations", lambda a: a.pop("iscrowd")), "4 iscrowd"),
        # Text is true, so mmdet would ignore every object.
        (each("annotations", lambda a: a.update(iscrowd="0")), "4 iscrowd"),
        (each("annotations", lambda a: a.pop("id")), "ids of annotations, that were missing"),
        (each("annotations", lambda a: a.update(id=str(a["id"]))), "ids of annotations"),
        (each("annotations", lambda a: a.update(bbox=list(map(str, BOX)))), "4 bbox from text"),
        (each("annotations", lambda a: a.update(image_id=str(a["image_id"]))), "4 image_id"),
        (each("annotations", lambda a: a.update(image_id=float(a["image_id"]))), "4 image_id"),
        (each("annotations", lambda a: a.update(category_id=str(a["category_id"]))), "4 categ"),
        (each("images", lambda i: i.update(id=str(i["id"]))), "2 id of images"),
        (each("categories", lambda c: c.update(id=str(c["id"]))), "2 id of categories"),
        (each("images", lambda i: (i.pop("width"), i.pop("height"))), "2 width and height"),
        (each("images", lambda i: i.update(width="20", height=None)), "2 width and height"),
        (lambda data: data["annotations"].append(data["annotations"][0]), "1 annotations removed"),
    ],
)
def test_what_can_be_computed_is(check, edit, said):
    found = check(edit)
    assert found.data == valid()
    assert said in found.describe_repairs()


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        (
            "annotations",
            [dict(id=1, area=i) for i in (1, 2, 3, 4)],
            [dict(id=i) for i in (1, 2, 3, 4)],
        ),
        ("annotations", [dict(segmentation=BOX + BOX)] * 4, [dict(segmentation=[BOX + BOX])] * 4),
        ("categories", [dict(name=0), dict(name=1)], [dict(name="0"), dict(name="1")]),
    ],
    ids=["ids that are not unique", "polygons without a list", "names that are numbers"],
)
def test_what_mmdet_does_not_read_is_brought_to_its_form(check, kind, before, after):
    found = check(lambda data: [old.update(new) for old, new in zip(data[kind], before)])
    for entry, expected in zip(found.data[kind], after):
        assert expected.items() <= entry.items()


def test_an_id_of_0_is_renumbered_where_pycocotools_would_lose_it(check):
    def from_0(data: Data) -> None:
        for number, annotation in enumerate(data["annotations"]):
            annotation["id"] = number

    assert check(from_0).repairs == []
    found = check(from_0, evaluated=True)
    assert [a["id"] for a in found.data["annotations"]] == [1, 2, 3, 4]
    assert not found.describe_repairs(only_required=True)


@pytest.mark.parametrize("lacking", [[], [1, 2, 3], None])
def test_boxes_come_from_polygons(check, lacking):
    polygons = [[1, 2, 4, 2, 4, 6], [1, 3, 2, 3, 2, 4]]
    found = check(each("annotations", lambda a: a.update(bbox=lacking, segmentation=polygons)))
    assert all(a["bbox"] == BOX for a in found.data["annotations"]) and found.has_masks


def test_backslashes_in_names_are_turned(check, tmp_path):
    (tmp_path / "photos" / "a").mkdir()
    (tmp_path / "photos" / "1.png").rename(tmp_path / "photos" / "a" / "1.png")
    found = check(lambda data: data["images"][0].update(file_name="a\\1.png"))
    assert found.data["images"][0]["file_name"] == "a/1.png"
    assert "1 file names" in found.describe_repairs()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (each("annotations", lambda a: a.pop("bbox")), "4 of 4 annotations have no 'bbox' of four"),
        (lambda d: d["annotations"][1].update(bbox=[1, 2, 3]), "1 of 4 annotations .*'bbox'"),
        (lambda d: d["annotations"][1].update(bbox=[1, 2, None, 3]), "1 of 4 .*'bbox' of four"),
        (lambda d: d["annotations"][1].pop("image_id"), "1 of 4 annotations have no image_id"),
        (lambda d: d["annotations"][1].update(category_id=[7]), "have no category_id"),
        # As ids from 0 are, beside categories from 1: a class is lost, the others are shifted.
        (
            each("annotations", lambda a: a.update(category_id=a["category_id"] - 1)),
            "2 of 4 annotations have an unknown category_id",
        ),
        (
            each("annotations", lambda a: a.update(image_id=a["image_id"] - 1)),
            "2 of 4 annotations have an unknown image_id",
        ),
        (lambda d: d["images"][1].update(id=1), r"1 of 2 images have an id .*\(id 1\)"),
        (lambda d: d["images"][1].pop("id"), "1 of 2 images have no id"),
        (lambda d: d["images"][1].pop("file_name"), "1 of 2 images have no 'file_name'"),
        (lambda d: d["categories"][1].pop("name"), "1 of 2 categories have no 'name'"),
        (lambda d: d["categories"][1].update(id=7), "1 of 2 categories have an id"),
        (lambda d: d["categories"][1].update(name="pear"), "found several called pear"),
        (lambda d: d["images"].clear(), "no images in it"),
        (lambda d: d.update(images={}), "with a list of dicts as images"),
        (lambda d: d["annotations"].append(3), "with a list of dicts as annotations"),
        (lambda d: d["images"][1].update(file_name="gone.png"), r"1 of 2 .*photos \(gone\.png\);"),
    ],
)
def test_what_cannot_be_computed_is_told_with_file_and_count(check, edit, message):
    with pytest.raises(DataError, match=rf"some\.json: .*{message}"):
        check(edit)


def test_an_image_that_is_there_twice_with_all_it_has_is_one(check):
    assert check(lambda data: data["images"].append(dict(data["images"][0]))).repairs == []


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1"])
def test_an_image_that_cannot_be_read_is_named(check, tmp_path, content):
    (tmp_path / "photos" / "2.png").write_bytes(content)
    with pytest.raises(
        DataError, match=r"1 of 2 images failed to load: .*photos/2\.png\); replace"
    ):
        check()


def test_a_test_set_may_lack_annotations(check):
    with pytest.raises(DataError, match="found no annotations"):
        check(lambda data: data.pop("annotations"))
    assert check(lambda data: data.pop("annotations"), labelled=False).data["annotations"] == []


def turn(path: Path, size: tuple[int, int]) -> None:
    """Store a photograph lying on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", size).save(path, exif=exif)


def test_an_image_that_is_turned_away_from_its_boxes_is_told(check, tmp_path):
    photo = tmp_path / "photos" / "1.jpg"
    turn(photo, (20, 10))
    assert cv2.imread(str(photo)).shape[:2] == (20, 10)

    def name(data: Data) -> None:
        data["images"][0]["file_name"] = "1.jpg"

    (warning,) = check(name).warnings
    assert "1 of 2 images are turned by mmcv" in warning.what and warning.items == ("1.jpg",)
    # The size is that of the upright photograph: as mmcv reads it.
    turn(photo, (10, 20))
    assert check(name).warnings == []


@pytest.mark.parametrize(
    ("edit", "warning"),
    [
        (lambda data: data["annotations"].clear(), "are no objects, so every mAP will be -1"),
        (lambda data: data["images"][1].update(width=640), r"1 of 2 images have another.*2\.png"),
    ],
)
def test_what_may_be_wrong_is_warned_of(check, edit, warning):
    (found,) = check(edit, evaluated=True).warnings
    assert re.search(warning, found.sentence)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_other_encodings_are_read_and_written_as_plain_text(check, tmp_path, encoding):
    check()
    path = tmp_path / "some.json"
    path.write_bytes(json.dumps(valid(), ensure_ascii=False).encode(encoding))
    assert read_annotations(path) == valid()
    found = check_annotations(path, tmp_path / "photos")
    assert "changed to plain text" in found.describe_repairs(only_required=True)
    found.write(tmp_path / "copy.json")
    with (tmp_path / "copy.json").open(encoding="ascii") as file:  # as pycocotools reads it
        assert json.load(file) == valid()
    assert path.read_bytes()[:2] != b"{\n"


def test_letters_that_the_locale_cannot_read_are_escaped(check, tmp_path, monkeypatch):
    check()
    path = tmp_path / "some.json"
    path.write_text(json.dumps(valid(), ensure_ascii=False).replace("pear", "梨"), "utf-8")
    assert check_annotations(path, tmp_path / "photos").repairs == []
    monkeypatch.setattr(locale, "getpreferredencoding", lambda *_: "cp1252")
    found = check_annotations(path, tmp_path / "photos")
    found.write(tmp_path / "copy.json")
    assert (tmp_path / "copy.json").read_bytes().isascii() and found.classes == ("梨", "apple")
