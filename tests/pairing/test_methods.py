"""Every method of the repository can be chosen and is explained."""

from __future__ import annotations

import pytest
from small import ROOT

from kd_det.pairing.methods import DEFAULT, METHODS, describe_methods, find_bases, find_configs


def test_the_table_has_every_method():
    files = {path.stem for path in (ROOT / "configs" / "_base_" / "methods").glob("*.py")}
    assert METHODS.keys() == files and DEFAULT in METHODS


def test_each_has_one_line():
    lines = describe_methods().splitlines()[1:]
    assert [line.split()[0] for line in lines] == list(METHODS)


def test_configs_are_those_of_the_repository():
    assert find_configs() == ROOT / "configs"
    assert all(path.is_file() for path in find_bases("kd_nd"))


def test_configs_that_were_installed_are_found_first(tmp_path, monkeypatch):
    package = tmp_path / "kd_det"
    monkeypatch.setattr("kd_det.shipped.__file__", str(package / "shipped.py"))
    with pytest.raises(FileNotFoundError, match=f"neither in {package}/.mim/configs nor in "):
        find_configs()
    for folder in (tmp_path / "configs", package / ".mim" / "configs"):
        (folder / "_base_" / "methods").mkdir(parents=True)
        assert find_configs() == folder


def test_an_unknown_method_lists_all():
    with pytest.raises(ValueError, match="unknown method 'fitnets'; available: robust, robust_nd_"):
        find_bases("fitnets")
