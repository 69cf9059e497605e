"""What mmrazor derives from mmcls can be built and works with what mmpretrain hands it."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

LEFT_OUT = {
    "mmcls_classes": """
import mmpretrain.models
from mmrazor.models import DeiTClsHead
DeiTClsHead(num_classes=3, in_channels=8)
"""
}
PATCHED = {
    "no mmpretrain": """
import sys
import mmrazor.datasets
assert "mmpretrain" not in sys.modules
"""
}

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mmpretrain") is None, reason="mmpretrain (extra `cls`) not installed"
)


def test_breaks_without_the_patch(left_out):
    assert "__init__() got an unexpected keyword argument" in left_out["mmcls_classes"]


def test_the_patch_loads_nothing(patched):
    assert patched["no mmpretrain"] is None


def test_head_takes_the_tokens_of_mmpretrain():
    import mmpretrain.models
    from mmrazor.registry import MODELS

    head = MODELS.build(dict(type="mmrazor.DeiTClsHead", num_classes=3, in_channels=8))
    assert isinstance(head, mmpretrain.models.VisionTransformerClsHead)
    cls, dist = torch.randn(2, 2, 8)
    expected = head.layers.head(cls)
    assert torch.equal(head(((cls, dist),)), expected)
    assert torch.equal(head(([torch.zeros(2, 8, 1, 1), cls, dist],)), expected)  # as mmcls had it


def test_crd_packs_what_its_loss_asks_for():
    import mmpretrain.datasets  # noqa: F401
    from mmpretrain.structures import DataSample
    from mmrazor.registry import TRANSFORMS

    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    results = dict(img=image, gt_label=1, sample_idx=7, contrast_sample_idxs=np.array([7, 3, 5]))
    packed = TRANSFORMS.build(dict(type="mmrazor.PackCRDClsInputs"))(results)
    assert torch.equal(packed["inputs"], torch.from_numpy(image).permute(2, 0, 1))
    sample = packed["data_samples"]
    assert isinstance(sample, DataSample) and sample.gt_label.tolist() == [1]
    assert sample.sample_idx.item() == 7
    assert sample.contrast_sample_idxs.tolist() == [7, 3, 5]
