"""The classes of the teacher's checkpoint are those of the data, or it is refused."""

from __future__ import annotations

import pytest
import torch
from zoo import CASCADE, FASTER

from kd_det.algorithms import CheckpointError
from kd_det.pairing import PairingError
from kd_det.pairing.detectors import read_detector
from kd_det.pairing.teacher_classes import check_teacher

FRUIT = ("apple", "pear", "plum")


def save(tmp_path, key: str, rows: int, classes: tuple[str, ...] | None) -> str:
    """As much of a checkpoint as is looked at."""
    meta = {} if classes is None else dict(dataset_meta=dict(classes=classes))
    path = tmp_path / "teacher.pth"
    torch.save(
        dict(meta=meta, state_dict={f"roi_head.{key}.fc_cls.weight": torch.ones(rows, 8)}), path
    )
    return str(path)


def check(path: str, name: str = FASTER, classes: tuple[str, ...] = FRUIT) -> str:
    (said,) = check_teacher(path, read_detector(name, "teacher", len(classes)), classes)
    return said


@pytest.mark.parametrize(("name", "key"), [(FASTER, "bbox_head"), (CASCADE, "bbox_head.0")])
def test_another_number_is_refused_with_both_named(tmp_path, name, key):
    names = tuple("abcdefgh")
    with pytest.raises(PairingError) as caught:
        check(save(tmp_path, key, 9, names), name)
    assert str(caught.value) == (
        f"the teacher's checkpoint {tmp_path}/teacher.pth was trained on 8 classes (a, b, c, d, e, "
        "f and 2 more), and the data has 3 (apple, pear, plum); train the teacher on this data "
        "first (tools/train.py with its config), or give the data that it was trained on"
    )
    with pytest.raises(PairingError, match="was trained on 8 classes, and the data has 3"):
        check(save(tmp_path, key, 9, None), name)


@pytest.mark.parametrize(
    ("theirs", "moved"),
    [
        (FRUIT[::-1], "apple (expected at 0, found at 2), plum (expected at 2, found at 0)"),
        (("Pear", "APPLE", "plum"), "apple (expected at 0, found at 1), pear"),
        (("cherry", "pear", "apple "), "apple (expected at 0, found at 2)"),
        (("plum", "pear", "cherry"), "plum (expected at 2, found at 0)"),
    ],
)
def test_a_class_in_another_place_is_refused_however_it_is_written(tmp_path, theirs, moved):
    with pytest.raises(PairingError, match="would teach wrong labels") as caught:
        check(save(tmp_path, "bbox_head", 4, theirs))
    assert moved in str(caught.value).replace("'", "")


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (FRUIT, "was trained on the same classes in the same order"),
        (("Apple", "PEAR", "plum"), "names its classes otherwise (Apple, PEAR, plum)"),
        (("Apfel", "Birne", "Pflaume"), "names its classes otherwise (Apfel, Birne, Pflaume)"),
        (None, "does not name its classes"),
    ],
)
def test_what_fits_is_said(tmp_path, classes, said):
    assert said in check(save(tmp_path, "bbox_head", 4, classes))


@pytest.mark.usefixtures("offline")
def test_nothing_is_downloaded():
    assert "downloaded" in check("https://host/teacher.pth")


def test_a_file_that_is_none(tmp_path):
    (tmp_path / "t.pth").write_text("<html>")
    with pytest.raises(CheckpointError, match=r"t\.pth cannot be read"):
        check(str(tmp_path / "t.pth"))
    with pytest.raises(FileNotFoundError, match=r"no\.pth does not exist"):
        check(str(tmp_path / "no.pth"))
