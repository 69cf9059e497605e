"""Recipes of pairs: the method by name, and names that recipes had before."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from mmengine.config import Config
from small import ROOT

from kd_det.config_files import read_config
from kd_det.errors import InvalidInputError
from kd_det.recipes import (
    VARIABLE,
    load_named,
    load_recipe,
    locate,
    method_option,
    methods_of,
    run_name,
)

CONFIGS = ROOT / "configs"
PAIR = CONFIGS / "digits" / "frcnn_r50_r18.py"


@pytest.fixture(autouse=True)
def no_method_from_outside(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)


def test_the_method_that_is_asked_for_teaches():
    cfg = load_recipe(PAIR, "dkd_nd")
    assert cfg.method == "dkd_nd"
    assert cfg.model.distiller.distill_losses.keys() == {"loss_dkd", "loss_nd"}
    assert method_option(cfg) == ["--method", "dkd_nd"]
    assert VARIABLE not in os.environ
    cfg = load_recipe(PAIR)
    assert cfg.method == "review_nd_kd" and method_option(cfg) == []


def test_plain_mmengine_reads_it_too(monkeypatch):
    monkeypatch.setenv(VARIABLE, "robust")
    assert Config.fromfile(PAIR).to_dict() == load_recipe(PAIR, "robust").to_dict()
    assert load_recipe(PAIR, "kd").method == "kd"
    assert os.environ[VARIABLE] == "robust"


def test_a_config_that_derives_from_a_pair_takes_a_method_too(tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text(f'_base_ = "{PAIR}"\ntrain_cfg = dict(max_epochs=1)\n')
    cfg = load_recipe(mine, "kd")
    assert cfg.method == "kd" and cfg.train_cfg.max_epochs == 1
    assert run_name(mine, cfg) == "mine_kd"


@pytest.mark.parametrize("path", [PAIR, CONFIGS / "cls" / "cifar100_r56_r20.py"])
def test_an_unknown_method_is_told_those_that_are_available(path):
    with pytest.raises(
        InvalidInputError, match=r"unknown method .kdd. for .*: .*dist_nd.*, kd, kd_nd"
    ):
        load_recipe(path, "kdd")
    assert VARIABLE not in os.environ


@pytest.mark.parametrize("name", ["digits/plain", "digits/review_nd_kd", "cascade_r101_r50_kd_nd"])
def test_a_recipe_of_one_method_takes_no_other(name):
    with pytest.raises(InvalidInputError, match=r"recipe for one method, so --method kd cannot"):
        load_recipe(CONFIGS / f"{name}.py", "kd")


@pytest.mark.parametrize(
    ("former", "pair", "method"),
    [
        ("frcnn_r101_r18_kd_nd", "frcnn_r101_r18", "kd_nd"),
        ("mrcnn_r101_r50_review_nd", "mrcnn_r101_r50", "review_nd"),
        ("digits/kd", "digits/frcnn_r50_r18", "kd"),
        ("cls/cifar100_r56_r20_kd_nd", "cls/cifar100_r56_r20", "kd_nd"),
        ("cls/digits/review", "cls/digits/r14_r8", "review"),
    ],
)
def test_a_name_of_before_is_told_what_it_is_now(former, pair, method, tmp_path):
    former, pair = CONFIGS / f"{former}.py", CONFIGS / f"{pair}.py"
    assert locate(former) == (pair, method) and load_named(former).method == method
    now = f"it is {pair} with --method {method} now"
    with pytest.raises(FileNotFoundError, match=now):
        read_config(str(former))
    mine = tmp_path / "mine.py"
    mine.write_text(f'_base_ = "{former}"\n')
    with pytest.raises(FileNotFoundError, match=f"does not exist: {former}; {now}"):
        read_config(str(mine))


def test_a_name_that_never_was_is_an_ordinary_missing_file(tmp_path):
    for name in ("frcnn_r101_r18_kdd", "kd", "digits/nothing"):
        with pytest.raises(FileNotFoundError, match="recipes are named like kd_det::"):
            read_config(str(CONFIGS / f"{name}.py"))
        with pytest.raises(FileNotFoundError, match="the recipe does not exist"):
            locate(CONFIGS / f"{name}.py")
    mine = tmp_path / "mine.py"
    mine.write_text('_base_ = "nothing.py"\n')
    with pytest.raises(InvalidInputError, match=r"mine.py derives from .* not exist: .*nothing.py"):
        read_config(str(mine))


def test_a_run_is_named_by_file_and_method():
    cfg = Config(dict(method="review_nd"))
    assert run_name("configs/frcnn_r101_r18.py", cfg) == "frcnn_r101_r18_review_nd"
    assert run_name("configs/frcnn_r101_r18_review_nd.py", cfg) == "frcnn_r101_r18_review_nd"
    assert run_name("configs/review_nd.py", cfg) == "review_nd"
    assert run_name(Path("mine.py"), Config({})) == "mine"


def test_only_pairs_have_methods():
    assert "kd_nd" in methods_of(PAIR)
    assert methods_of(CONFIGS / "digits" / "plain.py") == []
