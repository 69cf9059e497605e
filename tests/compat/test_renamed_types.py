"""A transform of mmpretrain has the name it had in mmcls, too."""

from __future__ import annotations

import importlib.util

import pytest

LEFT_OUT = {
    "renamed_types": """
from mmpretrain.registry import TRANSFORMS
TRANSFORMS.build(dict(type="PackClsInputs"))
"""
}

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mmpretrain") is None, reason="mmpretrain (extra `cls`) not installed"
)


def test_breaks_without_the_patch(left_out):
    assert "PackClsInputs is not in the mmpretrain" in left_out["renamed_types"]


@pytest.mark.parametrize("name", ["mmcls.PackClsInputs", "mmpretrain.PackClsInputs"])
def test_former_name_gives_the_same_class(name):
    from mmengine.registry import TRANSFORMS
    from mmpretrain.datasets import PackInputs

    assert type(TRANSFORMS.build(dict(type=name))) is PackInputs
