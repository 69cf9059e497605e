"""`mmdet::` configs resolve without `pkg_resources`."""

from __future__ import annotations

import importlib.util
import inspect
import os.path as osp
from importlib import metadata

import mmengine.utils.package_utils
import pytest

from kd_det.compat import installed_path

_LOAD = """
import os
from importlib.util import find_spec
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.utils import get_installed_path, is_installed

config = "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py"
assert get_config(config).model.type == "FasterRCNN"
assert os.path.isfile(Config._get_cfg_path(config, "inheriting.py")[0])
assert is_installed("mmdet") and not is_installed("no_such_package")
folder = os.path.dirname(find_spec("mmdet").origin)
assert os.path.samefile(get_installed_path("mmdet"), folder)
"""
BREAKAGE = {"installed_path": _LOAD}
PATCHED = {"installed_path": _LOAD}


def test_breaks_without_the_patch(unpatched):
    if "import pkg_resources" in inspect.getsource(mmengine.utils.package_utils):
        assert "pkg_resources" in unpatched["installed_path"]
    else:  # onedl-mmengine
        assert unpatched["installed_path"] is None


def test_configs_resolve(patched):
    assert patched["installed_path"] is None


def test_configs_resolve_where_mmengine_was_imported_first(run_fresh):
    """Its modules have then bound the two functions by name already."""
    prelude = "import mmengine.config, mmengine.hub\nimport kd_det\n"
    assert run_fresh({"load": _LOAD}, prelude) == {"load": None}


def test_is_installed_knows_distributions_and_modules():
    assert installed_path.is_installed("mmdet")
    assert installed_path.is_installed("json")  # a module without a distribution
    assert not installed_path.is_installed("no_such_package")


def test_path_of_a_distribution_with_another_module_name():
    """mmcv-lite installs mmcv: the folder of the module is meant."""
    folder = osp.dirname(importlib.util.find_spec("mmcv").origin)
    known = ("mmcv", "mmcv-lite")
    installed = {dist.metadata["Name"] for dist in metadata.distributions()} & set(known)
    if not installed:
        pytest.skip("neither mmcv nor mmcv-lite is installed")
    for name in installed:
        assert osp.samefile(installed_path.get_installed_path(name), folder)


def test_path_of_a_plain_module_on_the_path(tmp_path, monkeypatch):
    (tmp_path / "loose_module").mkdir()
    (tmp_path / "loose_module" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert installed_path.is_installed("loose_module")
    found = installed_path.get_installed_path("loose_module")
    assert osp.samefile(found, tmp_path / "loose_module")


def test_what_has_no_folder_is_an_error(tmp_path, monkeypatch):
    with pytest.raises(metadata.PackageNotFoundError, match="no_such_package"):
        installed_path.get_installed_path("no_such_package")
    (tmp_path / "only_a_namespace").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not installed_path.is_installed("only_a_namespace")
    with pytest.raises(RuntimeError, match="namespace package"):
        installed_path.get_installed_path("only_a_namespace")
