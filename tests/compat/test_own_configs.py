"""Recipes have names that hold in any folder."""

from __future__ import annotations

import pytest
from mmengine.config import Config
from small import ROOT

from kd_det.config_files import read_config
from kd_det.recipes import run_name

PLAIN = ROOT / "configs" / "digits" / "plain.py"


def test_a_recipe_is_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wanted = Config.fromfile(PLAIN).to_dict()
    for read in (Config.fromfile, read_config):
        cfg = read("kd_det::digits/plain.py")
        assert cfg.to_dict() == wanted and cfg.filename == str(PLAIN)
    (tmp_path / "mine.py").write_text('_base_ = "kd_det::digits/plain.py"\nmore = 1\n')
    assert Config.fromfile("mine.py").to_dict() == {**wanted, "more": 1}


def test_a_pair_takes_its_method():
    name = "kd_det::frcnn_r101_r18.py"
    cfg = read_config(name, "kd_nd")
    assert cfg.method == "kd_nd" and run_name(name, cfg) == "frcnn_r101_r18_kd_nd"


def test_a_wrong_name_gets_similar_ones():
    with pytest.raises(FileNotFoundError, match=r"similar names: .*kd_det::digits/plain\.py"):
        read_config("kd_det::digits/plane.py")
    with pytest.raises(FileNotFoundError, match=r"plane\.py\" does not exist"):
        Config.fromfile("kd_det::digits/plane.py")
