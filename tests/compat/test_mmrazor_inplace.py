"""What is recorded before a ReLU is what came before it."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn

LEFT_OUT = {
    "mmrazor_inplace": """
import torch
from mmengine.registry import DefaultScope
from mmrazor.registry import MODELS
model = dict(
    type="mmpretrain.ImageClassifier",
    backbone=dict(type="mmpretrain.ResNet", depth=18, base_channels=8, stem_channels=8),
)
with DefaultScope.overwrite_default_scope("mmpretrain"):
    algorithm = MODELS.build(
        dict(
            type="mmrazor.SingleTeacherDistill",
            architecture=model,
            teacher=model,
            distiller=dict(type="mmrazor.ConfigurableDistiller"),
        )
    )
left = [name for name, module in algorithm.named_modules() if getattr(module, "inplace", False)]
assert not left, "in place: " + str(len(left))
"""
}


def test_breaks_without_the_patch(left_out):
    broken = not isinstance(nn.Module()._modules, OrderedDict)  # since torch 2.4
    assert left_out["mmrazor_inplace"] == ("AssertionError: in place: 18" if broken else None)


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_stages_of_a_resnet_are_before_relu(side):
    from small_cls import CLS, batch, build_distiller

    from kd_det.recipes import load_named

    model = build_distiller(load_named(CLS / "imagenet_r34_r18_review.py"))
    data = model.data_preprocessor(batch(1000, 64), training=True)
    recorders = getattr(model.distiller, f"{side}_recorders")
    network = getattr(model, side)
    with recorders, torch.no_grad():
        network(**data, mode="loss")
    stages = recorders.get_recorder("stages").get_record_data()
    assert [bool((stage < 0).any()) for stage in stages] == [True] * 4 + [False]
