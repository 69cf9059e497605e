"""A classifier can be built while another package's scope is the default."""

from __future__ import annotations

import importlib.util

import pytest
from mmengine.registry import MODELS, DefaultScope

CLASSIFIER = dict(
    type="mmpretrain.ImageClassifier",
    backbone=dict(type="mmpretrain.ResNet", depth=18),
)
LEFT_OUT = {
    "classifier_scope": f"""
from mmengine.registry import MODELS, DefaultScope
with DefaultScope.overwrite_default_scope("mmrazor"):
    MODELS.build({CLASSIFIER!r})
"""
}

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mmpretrain") is None, reason="mmpretrain (extra `cls`) not installed"
)


def test_breaks_without_the_patch(left_out):
    assert "ClsDataPreprocessor is not in the mmrazor" in left_out["classifier_scope"]


@pytest.mark.parametrize("scope", ["mmrazor", "mmdet", "mmpretrain"])
@pytest.mark.parametrize("given", [None, {}, {"mean": [1.0, 2.0, 3.0], "std": [1.0, 1.0, 1.0]}])
def test_default_data_preprocessor(scope, given):
    from mmpretrain.models import ClsDataPreprocessor

    with DefaultScope.overwrite_default_scope(scope):
        model = MODELS.build(dict(CLASSIFIER, data_preprocessor=given))
    assert type(model.data_preprocessor) is ClsDataPreprocessor
    if given:
        assert model.data_preprocessor.mean.flatten().tolist() == given["mean"]


def test_another_data_preprocessor_is_left_alone():
    from mmengine.model import ImgDataPreprocessor

    ready = ImgDataPreprocessor()
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        model = MODELS.build(dict(CLASSIFIER, data_preprocessor=ready))
        named = dict(type="SelfSupDataPreprocessor", batch_augments=None)
        with pytest.raises(TypeError, match="batch_augments"):  # SelfSupDataPreprocessor has none
            MODELS.build(dict(CLASSIFIER, data_preprocessor=named))
    assert model.data_preprocessor is ready
