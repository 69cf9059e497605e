"""`mmcls` in a config means mmpretrain."""

from __future__ import annotations

import importlib.util
import os.path as osp

import pytest
from mmengine.config import Config

from kd_det.compat import mmcls
from kd_det.errors import MissingPackageError

BREAKAGE = {
    "mmcls": """
import importlib
from mmengine.config.utils import _get_package_and_cfg_path
package, _ = _get_package_and_cfg_path("mmcls::resnet/resnet18_8xb32_in1k.py")
importlib.import_module(package)
"""
}

needs_mmpretrain = pytest.mark.skipif(
    importlib.util.find_spec("mmpretrain") is None, reason="mmpretrain (extra `cls`) not installed"
)


def test_breaks_without_the_patch(unpatched):
    if importlib.util.find_spec("mmcls") is not None:
        assert unpatched["mmcls"] is None
    else:
        assert unpatched["mmcls"] == "ModuleNotFoundError: No module named 'mmcls'"


@needs_mmpretrain
def test_types_build_from_mmpretrain():
    from mmengine.registry import MODELS
    from mmpretrain.models import ImageClassifier, ResNet

    backbone = dict(type="mmcls.ResNet", depth=18)
    assert type(MODELS.build(backbone)) is ResNet
    inherited = dict(type="ImageClassifier", _scope_="mmcls", backbone=backbone)
    assert type(MODELS.build(inherited)) is ImageClassifier


@needs_mmpretrain
def test_whole_models_by_path():
    """`cfg_path=` is how mmrazor's configs name teacher and student."""
    from mmengine.hub import get_model
    from mmpretrain.models import ImageClassifier

    assert type(get_model("mmcls::resnet/resnet18_8xb32_in1k.py")) is ImageClassifier


def test_without_mmpretrain_the_error_names_it(monkeypatch):
    from mmengine.config import config as config_module
    from mmengine.registry import MODELS

    monkeypatch.setattr(mmcls.importlib.util, "find_spec", lambda name, *args: None)
    with pytest.raises(MissingPackageError, match="pip install mmpretrain"):
        MODELS.get("mmcls.ResNet")
    monkeypatch.setattr(config_module, "is_installed", lambda package: False)
    with pytest.raises(ModuleNotFoundError, match="mmpretrain is not installed"):
        Config._get_cfg_path("mmcls::resnet/resnet18_8xb32_in1k.py", osp.curdir)
