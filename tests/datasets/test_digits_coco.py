"""digits-coco is deterministic, well-formed COCO, honest about its boxes, and careful on disk."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from sklearn.datasets import load_digits

from kd_det.datasets import (
    CLASSES,
    PALETTE,
    DigitsCoco,
    digits_coco,
    digits_drawing,
    make_digits_coco,
)

SMALL: dict[str, Any] = {"image_size": 96, "train_images": 30, "val_images": 10, "seed": 7}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> DigitsCoco:
    """A small set, shared by the tests that only read."""
    return make_digits_coco(tmp_path_factory.mktemp("data") / "digits", **SMALL)


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def contents(root: Path) -> dict:
    """Every file of a tree by its relative name, as bytes."""
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


# What is in the pictures


def test_the_same_arguments_give_the_same_bytes_and_another_seed_others(made, tmp_path):
    again = make_digits_coco(tmp_path / "again", **SMALL)
    assert contents(again.root) == contents(made.root)
    other = make_digits_coco(tmp_path / "other", **{**SMALL, "seed": 8, "train_images": 3})
    for path in other.train_dir.iterdir():
        assert path.read_bytes() != (made.train_dir / path.name).read_bytes()
    pictures = [data for name, data in contents(made.root).items() if name.endswith(".jpg")]
    assert len(set(pictures)) == len(pictures) == 40


def test_fewer_images_are_a_prefix_of_more(made, tmp_path):
    fewer = make_digits_coco(tmp_path / "few", **{**SMALL, "train_images": 10, "val_images": 0})
    assert sorted(p.name for p in fewer.train_dir.iterdir()) == [f"{i:06d}.jpg" for i in range(10)]
    for path in fewer.train_dir.iterdir():
        assert path.read_bytes() == (made.train_dir / path.name).read_bytes()
    more = [a for a in read(made.train_ann)["annotations"] if a["image_id"] <= 10]
    assert read(fewer.train_ann)["annotations"] == more
    assert read(fewer.val_ann)["images"] == []


def test_handwriting_is_split_by_class_without_overlap(made):
    digits = load_digits()
    handwriting = digits_drawing.load_handwriting(SMALL["seed"])
    train, val = handwriting.rows["train"], handwriting.rows["val"]
    assert sorted([*train, *val]) == list(range(len(digits.target)))
    in_all, in_val = Counter(digits.target), Counter(digits.target[val])
    assert all(in_val[label] == round(0.2 * in_all[label]) for label in range(10))
    assert set(digits_drawing.load_handwriting(seed=4).rows["val"]) != set(val)
    # Annotations name their drawing.
    for rows, path in ((train, made.train_ann), (val, made.val_ann)):
        annotations = read(path)["annotations"]
        assert {a["sample"] for a in annotations} <= set(rows.tolist())
        for a in annotations:
            assert a["category_id"] == digits.target[a["sample"]] + 1


@pytest.mark.parametrize("image_size", [32, 96, 200])
def test_boxes_are_tight_around_the_ink_and_overlap_little(image_size):
    handwriting = digits_drawing.load_handwriting(seed=1)
    for index in range(40):
        picture, ink, digits = digits_drawing.render_image(handwriting, image_size, 1, "val", index)
        assert picture.shape == (image_size, image_size, 3) and picture.dtype == np.uint8
        assert 1 <= len(digits) <= 6 and ink.max() == len(digits)
        cover = np.zeros((len(digits), image_size, image_size), bool)
        for number, (digit, box) in enumerate(zip(digits, cover), start=1):
            ys, xs = np.nonzero(ink == number)
            tight = (xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1)
            assert tight == (digit.x, digit.y, digit.w, digit.h)
            box[digit.y : digit.y + digit.h, digit.x : digit.x + digit.w] = True
        for i, a in enumerate(cover):
            for b in cover[:i]:
                assert (a & b).sum() <= 0.15 * min(a.sum(), b.sum())


def test_files_show_the_ink_that_boxes_claim(made):
    """In the JPEG files, strokes differ in colour from the rest of their box: no shifted boxes."""
    handwriting = digits_drawing.load_handwriting(SMALL["seed"])
    contrasts = []
    for image in read(made.train_ann)["images"]:
        index = image["id"] - 1
        _, ink, digits = digits_drawing.render_image(handwriting, 96, SMALL["seed"], "train", index)
        picture = cv2.imread(str(made.train_dir / image["file_name"])).astype(float)
        for number, d in enumerate(digits, start=1):
            box = (slice(d.y, d.y + d.h), slice(d.x, d.x + d.w))
            stroke, rest = ink[box] == number, ink[box] == 0
            if rest.sum() > 20:
                means = [picture[box][mask].mean(axis=0) for mask in (stroke, rest)]
                contrasts.append(np.linalg.norm(means[0] - means[1]))
    assert np.mean(np.array(contrasts) > 40) > 0.95


# The annotation files


def test_coco_layout(made):
    for path, folder, count in (
        (made.train_ann, made.train_dir, 30),
        (made.val_ann, made.val_dir, 10),
    ):
        data = read(path)
        assert data["info"]["arguments"] == SMALL
        assert [(c["id"], c["name"]) for c in data["categories"]] == list(enumerate(CLASSES, 1))
        assert [image["id"] for image in data["images"]] == list(range(1, count + 1))
        assert {p.name for p in folder.iterdir()} == {i["file_name"] for i in data["images"]}
        for image in data["images"]:
            height, width = cv2.imread(str(folder / image["file_name"])).shape[:2]
            assert (height, width) == (image["height"], image["width"]) == (96, 96)
        annotations = data["annotations"]
        assert [a["id"] for a in annotations] == list(range(1, len(annotations) + 1))
        assert {a["image_id"] for a in annotations} == set(range(1, count + 1))
        assert {a["category_id"] for a in annotations} == set(range(1, 11))
        for a in annotations:
            x, y, w, h = a["bbox"]
            assert x >= 0 and y >= 0 and w > 0 and h > 0 and x + w <= 96 and y + h <= 96
            assert a["area"] == w * h and a["iscrowd"] == 0


def test_ground_truth_as_detections_scores_one(made):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(made.val_ann))
        detections = [
            {key: a[key] for key in ("image_id", "category_id", "bbox")} | {"score": 1.0}
            for a in truth.dataset["annotations"]
        ]
        evaluation = COCOeval(truth, truth.loadRes(detections), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0, abs=1e-6)


def test_mmdet_keeps_every_image_and_box(made):
    from mmdet.datasets import CocoDataset

    with contextlib.redirect_stdout(io.StringIO()):
        dataset = CocoDataset(
            ann_file=str(made.train_ann),
            data_prefix={"img": str(made.train_dir)},
            metainfo={"classes": CLASSES, "palette": PALETTE},
            filter_cfg={"filter_empty_gt": True, "min_size": 32},
            pipeline=[],
        )
    data = read(made.train_ann)
    assert len(dataset) == len(data["images"])
    labels = [o["bbox_label"] for i in range(len(dataset)) for o in dataset[i]["instances"]]
    assert labels == [a["category_id"] - 1 for a in data["annotations"]]


# Manners on disk

TINY: dict[str, Any] = {"image_size": 32, "train_images": 4, "val_images": 2, "seed": 0}


def interrupt(numbers, description):
    """A progress bar on which the user presses Ctrl-C in the second split."""
    for number in numbers:
        if description.endswith("val"):
            raise KeyboardInterrupt
        yield number


def test_an_interrupted_call_leaves_what_was_there(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        make_digits_coco(tmp_path / "digits", **TINY, track=interrupt)
    assert list(tmp_path.iterdir()) == []
    old = contents(make_digits_coco(tmp_path / "digits", **TINY).root)
    with pytest.raises(KeyboardInterrupt):
        make_digits_coco(tmp_path / "digits", **{**TINY, "seed": 1}, force=True, track=interrupt)
    assert contents(tmp_path / "digits") == old
    assert [p.name for p in tmp_path.iterdir()] == ["digits"]


def test_failed_rename_brings_the_old_set_back(tmp_path, monkeypatch):
    old = contents(make_digits_coco(tmp_path / "digits", **TINY).root)
    rename = Path.rename

    def fail_for_the_new_one(self, target):
        if self.name == "made":
            raise OSError("no space")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_the_new_one)
    with pytest.raises(OSError, match="no space"):
        make_digits_coco(tmp_path / "digits", **{**TINY, "seed": 1}, force=True)
    assert contents(tmp_path / "digits") == old


def test_up_to_date_set_is_left_alone(tmp_path, monkeypatch):
    first = make_digits_coco(tmp_path / "digits", **TINY)
    (first.root / "notes.txt").write_text("mine")
    monkeypatch.setattr(digits_coco, "render_image", None)
    second = make_digits_coco(tmp_path / "digits", **TINY)
    assert (first.created, second.created) == (True, False)
    assert second.val_ann == first.val_ann == first.root / "annotations" / "instances_val.json"


def test_set_of_a_faster_process_is_kept(tmp_path):
    def be_overtaken(numbers, description):
        if description.endswith("val"):
            make_digits_coco(tmp_path / "digits", **TINY)
        return numbers

    made = make_digits_coco(tmp_path / "digits", **TINY, track=be_overtaken)
    assert not made.created and made.val_ann.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["digits"]


def test_empty_folder_and_link_are_filled(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk", target_is_directory=True)
    made = make_digits_coco(tmp_path / "link", **TINY)
    assert (tmp_path / "link").is_symlink() and made.root == (tmp_path / "disk").resolve()
    assert len(list((tmp_path / "link" / "train").iterdir())) == 4


def test_another_set_is_an_error_unless_forced(tmp_path, monkeypatch):
    make_digits_coco(tmp_path / "digits", **TINY)
    other = {**TINY, "image_size": 40}
    with pytest.raises(FileExistsError, match=r"expected .*image_size 40.*found .*image_size 32"):
        make_digits_coco(tmp_path / "digits", **other)
    assert make_digits_coco(tmp_path / "digits", **other, force=True).created
    assert read(tmp_path / "digits/annotations/instances_val.json")["info"]["arguments"] == other
    monkeypatch.setattr(digits_coco, "VERSION", 99)
    with pytest.raises(FileExistsError, match=r"expected .*version 99.*found .*version 1 "):
        make_digits_coco(tmp_path / "digits", **other)


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("train/000002.jpg", "train: expected 4 images, found 3"),
        ("annotations/instances_val.json", "found that of no readable annotation file"),
    ],
)
def test_incomplete_set_is_an_error_unless_forced(tmp_path, lost, message):
    made = make_digits_coco(tmp_path / "digits", **TINY)
    (made.root / lost).unlink()
    with pytest.raises(FileExistsError, match=message):
        make_digits_coco(tmp_path / "digits", **TINY)
    assert make_digits_coco(tmp_path / "digits", **TINY, force=True).created
    assert (made.root / lost).exists()


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    "name", ["photo.jpg", "train/000000.jpg", "annotations/instances_val.json", ""]
)
def test_what_is_foreign_is_never_replaced(tmp_path, force, name):
    path = tmp_path / "mine" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"info": {"description": "my own"}}')
    with pytest.raises(FileExistsError, match=r"expected a digits-coco set.*never replaced"):
        make_digits_coco(tmp_path / "mine", **TINY, force=force)
    assert path.read_text() == '{"info": {"description": "my own"}}'


@pytest.mark.parametrize("name", ["checkpoint.pth", "train/000000.png", "runs/log.txt"])
def test_force_spares_a_set_with_other_files_in_it(tmp_path, name):
    path = make_digits_coco(tmp_path / "digits", **TINY).root / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    with pytest.raises(FileExistsError, match=f"other, such as {name.split('/')[0]}"):
        make_digits_coco(tmp_path / "digits", **TINY, force=True)
    assert path.read_text() == "mine"


# Errors


@pytest.mark.parametrize(
    ("argument", "value", "least"),
    [
        ("image_size", 31, 32),
        ("image_size", 64.0, 32),
        ("train_images", -1, 0),
        ("seed", None, 0),
        ("val_images", True, 0),
    ],
)
def test_bad_argument_is_named(tmp_path, argument, value, least):
    message = f"{argument}: expected an integer of {least} or more, found {value!r}"
    with pytest.raises(ValueError, match=message):
        make_digits_coco(tmp_path / "digits", **{argument: value})
    assert list(tmp_path.iterdir()) == []


def test_missing_scikit_learn_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r'pip install "kd_det\[demo\]"'):
        make_digits_coco(tmp_path / "digits", **TINY)
    assert list(tmp_path.iterdir()) == []
