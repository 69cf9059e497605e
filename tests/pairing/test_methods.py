"""Every method of the repository can be chosen and is explained."""

from __future__ import annotations

import pytest
from small import ROOT

from kd_det.pairing.methods import (
    DEFAULT,
    METHODS,
    NEEDS,
    describe_methods,
    find_coco,
    find_configs,
    find_forms,
)


def test_the_table_has_every_method():
    base = ROOT / "configs" / "_base_"
    files = {path.stem for folder in NEEDS for path in (base / folder).glob("*.py")}
    assert METHODS.keys() == files and DEFAULT in METHODS


def test_each_has_one_line():
    lines = describe_methods().splitlines()[1:]
    assert [line.split()[0] for line in lines] == list(METHODS)


def test_configs_are_those_of_the_repository():
    assert find_configs() == ROOT / "configs"
    assert find_coco().is_file()
    forms = [(form.path.parent.name, form.needs) for form in find_forms("kd_nd")]
    assert forms == [
        ("methods", ("roi_logits", "roi_embedding")),
        ("methods_dense", ("class_maps", "dense_embedding")),
        ("methods_query", ("shared_queries", "query_embedding")),
    ]


def test_configs_that_were_installed_are_found_first(tmp_path, monkeypatch):
    package = tmp_path / "kd_det"
    monkeypatch.setattr("kd_det.shipped.__file__", str(package / "shipped.py"))
    with pytest.raises(FileNotFoundError, match=f"neither in {package}/.mim/configs nor in "):
        find_configs()
    for folder in (tmp_path / "configs", package / ".mim" / "configs"):
        (folder / "_base_" / "methods").mkdir(parents=True)
        assert find_configs() == folder


def test_an_unknown_method_lists_all():
    with pytest.raises(ValueError, match="unknown method 'fitnets'; available: robust, robust_"):
        find_forms("fitnets")
