"""Names of a head's layers, against those that the tests know."""

from __future__ import annotations

import pytest
import torch
from small_dense import PREDICTORS, convs, detector, embeddings

from kd_det.algorithms import WiringError
from kd_det.algorithms.dense import branch_layers, class_layers, depth_of, pyramid_recorder

HEADS = [name for name in PREDICTORS if name != "vfnet"]


@pytest.mark.parametrize("name", PREDICTORS)
def test_layers_that_predict_classes(name):
    model = detector(name)
    state = torch.get_rng_state()
    assert pyramid_recorder(class_layers(model.bbox_head), inputs=True) == embeddings(name)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("name", ["gfl", "rtmdet"])
def test_without_weights(name):
    head = detector(name).bbox_head.to("meta")
    assert pyramid_recorder(class_layers(head), inputs=True) == embeddings(name)


@pytest.mark.parametrize("branch", ["cls", "box"])
@pytest.mark.parametrize("name", HEADS)
def test_layers_of_a_branch(name, branch):
    head = detector(name, convs=3).bbox_head
    assert depth_of(head, branch) == 3
    for depth in (1, 3):
        assert pyramid_recorder(branch_layers(head, branch, depth)) == convs(name, branch, depth)
    for depth in (0, 4):
        with pytest.raises(WiringError, match=f"has 3 convolutions in .*, found depth {depth}"):
            branch_layers(head, branch, depth)


def test_heads_without_them_are_named():
    for name in ("tood", "yolov3"):
        with pytest.raises(TypeError, match=r"cls_convs and reg_convs .*RetinaNet, FCOS"):
            depth_of(detector(name).bbox_head, "cls")
    with pytest.raises(TypeError, match="class maps of a TOODHead are no outputs of its layers"):
        class_layers(detector("tood").bbox_head)
