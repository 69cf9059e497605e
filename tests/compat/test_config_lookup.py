"""Metafiles are read once, and lead to the same configs."""

from __future__ import annotations

import mmengine.fileio
from mmengine.config import Config, utils

import kd_det  # noqa: F401  (activates compat)

NAME = "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py"


def test_a_second_look_up_reads_no_file():
    first = Config._get_cfg_path(NAME, "")
    read = utils.load.cache_info().misses
    other = Config._get_cfg_path(NAME.replace("r50", "r101"), "")
    assert read > 0 and utils.load.cache_info().misses == read
    assert first[0].endswith("faster-rcnn_r50_fpn_1x_coco.py") and first[1] == "mmdet"
    assert other[0].endswith("faster-rcnn_r101_fpn_1x_coco.py")


def test_files_that_others_read_are_read_each_time():
    assert not hasattr(mmengine.fileio.load, "cache_info")
