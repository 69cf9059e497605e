"""Images are padded so that both sides of a pair can take them."""

from __future__ import annotations

import pytest
from zoo import FASTER, STUDENTS, write

from kd_det.pairing.compose import pair
from kd_det.pairing.detectors import read_detector
from kd_det.pairing.padding import needed_multiple

pytestmark = pytest.mark.usefixtures("offline")


@pytest.mark.parametrize(
    ("name", "multiple"),
    [
        (FASTER, 1),
        ("mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py", 32),
        ("mmdet::yolo/yolov3_d53_8xb8-320-273e_coco.py", 32),  # whose levels are deep to fine
        ("mmdet::ssd/ssd300_coco.py", 1),
    ],
)
def test_the_multiple_is_that_of_the_neck(name, multiple):
    assert needed_multiple(read_detector(name, "teacher")) == multiple


def test_images_are_padded_for_a_teacher_whose_neck_joins_maps(tmp_path):
    path = write(
        tmp_path / "s.py", data_preprocessor=dict(pad_size_divisor=1), **STUDENTS["narrow"]
    )
    rtmdet = "mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py"
    made = pair(path, rtmdet, "pkd")
    for side in (made.cfg.model.architecture, made.cfg.model.teacher):
        assert side.data_preprocessor.pad_size_divisor == 32
    # Its own recipe gives it images of such sizes.
    assert not any("are padded" in each for each in pair(rtmdet, rtmdet, "pkd").decisions)
