"""What mmrazor and its configs expect of mmcls works with mmpretrain."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS, TRANSFORMS, DefaultScope
from small import ROOT

CLASSIFIER = dict(
    type="mmpretrain.ImageClassifier",
    backbone=dict(type="mmpretrain.ResNet", depth=18),
)
LEFT_OUT = {
    "classifier_scope": f"""
from mmengine.registry import MODELS, DefaultScope
with DefaultScope.overwrite_default_scope("mmrazor"):
    MODELS.build({CLASSIFIER!r})
""",
    "mmcls_classes": """
import mmpretrain.models
from mmrazor.models import DeiTClsHead
DeiTClsHead(num_classes=3, in_channels=8)
""",
    "renamed_types": """
from mmpretrain.registry import TRANSFORMS
TRANSFORMS.build(dict(type="PackClsInputs"))
""",
}
BROKEN = {
    "classifier_scope": "ClsDataPreprocessor is not in the mmrazor",
    "mmcls_classes": "__init__() got an unexpected keyword argument",
    "renamed_types": "PackClsInputs is not in the mmpretrain",
}
PATCHED = {
    "no mmpretrain": """
import sys
import mmrazor.datasets
assert "mmpretrain" not in sys.modules
""",
}

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mmpretrain") is None, reason="mmpretrain (extra `cls`) not installed"
)


@pytest.mark.parametrize("patch", BROKEN)
def test_breaks_without_the_patch(left_out, patch):
    assert BROKEN[patch] in left_out[patch]


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


def test_the_patch_loads_nothing(patched):
    assert patched["no mmpretrain"] is None


def test_head_takes_the_tokens_of_mmpretrain():
    import mmpretrain.models

    head = MODELS.build(dict(type="mmrazor.DeiTClsHead", num_classes=3, in_channels=8))
    assert isinstance(head, mmpretrain.models.VisionTransformerClsHead)
    cls, dist = torch.randn(2, 2, 8)
    expected = head.layers.head(cls)
    assert torch.equal(head(((cls, dist),)), expected)
    assert torch.equal(head(([torch.zeros(2, 8, 1, 1), cls, dist],)), expected)  # as mmcls had it


def test_crd_packs_what_its_loss_asks_for():
    import mmpretrain.datasets  # noqa: F401
    from mmpretrain.structures import DataSample

    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    results = dict(img=image, gt_label=1, sample_idx=7, contrast_sample_idxs=np.array([7, 3, 5]))
    packed = TRANSFORMS.build(dict(type="mmrazor.PackCRDClsInputs"))(results)
    assert torch.equal(packed["inputs"], torch.from_numpy(image).permute(2, 0, 1))
    sample = packed["data_samples"]
    assert isinstance(sample, DataSample) and sample.gt_label.tolist() == [1]
    assert sample.sample_idx.item() == 7
    assert sample.contrast_sample_idxs.tolist() == [7, 3, 5]


@pytest.mark.parametrize("name", ["mmcls.PackClsInputs", "mmpretrain.PackClsInputs"])
def test_former_name_gives_the_same_class(name):
    from mmpretrain.datasets import PackInputs

    assert type(TRANSFORMS.build(dict(type=name))) is PackInputs


def test_a_transformers_of_other_names_leaves_multimodal_models_out(tmp_path):
    package, info = tmp_path / "transformers", tmp_path / "transformers-5.0.0.dist-info"
    package.mkdir(), info.mkdir()
    for name in ("__init__", "modeling_utils"):
        (package / f"{name}.py").write_text("")
    # torch 2.1 looks for this one when it is imported
    (package / "__init__.py").write_text("from transformers import configuration_utils\n")
    (package / "configuration_utils.py").write_text("class PretrainedConfig: ...\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: transformers\nVersion: 5.0.0\n")
    code = "import kd_det, mmpretrain.models; print(mmpretrain.models.ImageClassifier.__name__)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["ImageClassifier"], done.stderr
