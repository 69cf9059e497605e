"""Metafiles are read and configs formatted once, with the same results."""

from __future__ import annotations

import mmengine.fileio
import pytest
from mmengine.config import Config, config, utils

from kd_det import caches

NAME = "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py"

caches.install()

formats = pytest.mark.skipif(
    not hasattr(config, "FormatCode"), reason="this mmengine writes configs without yapf"
)


def test_a_second_look_up_reads_no_file():
    first = Config._get_cfg_path(NAME, "")
    read = utils.load.cache_info().misses
    other = Config._get_cfg_path(NAME.replace("r50", "r101"), "")
    assert read > 0 and utils.load.cache_info().misses == read
    assert first[0].endswith("faster-rcnn_r50_fpn_1x_coco.py") and first[1] == "mmdet"
    assert other[0].endswith("faster-rcnn_r101_fpn_1x_coco.py")


def test_files_that_others_read_are_read_each_time():
    assert not hasattr(mmengine.fileio.load, "cache_info")


@formats
def test_text_is_the_same_and_follows_changes():
    cfg = Config(dict(a=dict(b=[1, 2, 3], c="x" * 90, d=dict(e=1.5, f=("y" * 30, "z" * 30)))))
    text = cfg.pretty_text
    plain = config.FormatCode.__wrapped__
    raw = object.__getattribute__(cfg, "_cfg_dict").to_dict()
    style = dict(
        based_on_style="pep8",
        blank_line_before_nested_class_or_def=True,
        split_before_expression_after_opening_paren=True,
    )
    assert text == plain(text, style_config=style)[0]
    assert "\n" in text.strip() and Config.fromstring(text, ".py").to_dict() == raw
    assert cfg.pretty_text == text
    cfg.a.b = [4]
    assert Config.fromstring(cfg.pretty_text, ".py").a.b == [4]


@formats
def test_the_same_text_is_formatted_once(monkeypatch):
    calls = []

    def format_code(text, style_config, verify=False):
        calls.append((text, verify))
        return text.upper(), True

    monkeypatch.setattr(config, "FormatCode", format_code)
    caches.install()
    style = dict(based_on_style="pep8")
    for _ in range(3):
        assert config.FormatCode("a = 1", style_config=style) == ("A = 1", True)
    config.FormatCode("a = 1", style_config=style, verify=True)
    config.FormatCode("b = 1", style_config=style)
    assert calls == [("a = 1", False), ("a = 1", True), ("b = 1", False)]
    cached = config.FormatCode
    caches.install()
    assert config.FormatCode is cached
