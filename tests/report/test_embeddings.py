"""Embeddings are the inputs of the layer of logits, of annotated boxes in the model's pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from small import ROOT, build
from torch import nn

from kd_det.report.embeddings import cosines, embed, embedding_layer


@pytest.fixture(scope="module")
def detector() -> nn.Module:
    torch.manual_seed(0)
    return build(Config.fromfile(ROOT / "configs" / "digits" / "plain.py").model).eval()


def batch(scale: float) -> dict:
    sample = DetDataSample(metainfo=dict(scale_factor=(scale, scale), img_shape=(64, 64)))
    torch.manual_seed(1)
    return dict(inputs=torch.randn(1, 3, 64, 64), data_samples=[sample])


BOXES = np.array([[4, 4, 30, 30], [10, 20, 60, 50]], np.float32)
LABELS = np.array([3, 7])


def test_logits_follow_from_embeddings(detector):
    seen = []
    handle = detector.roi_head.bbox_head.fc_cls.register_forward_hook(
        lambda layer, inputs, output: seen.append(output)
    )
    found, labels = embed(detector, batch(1), [(BOXES, LABELS)])
    handle.remove()
    layer = embedding_layer(detector)
    assert found.shape == (2, 128) and labels.tolist() == [3, 7]
    assert torch.allclose(layer(torch.from_numpy(found)), seen[0], atol=1e-5)
    assert len(layer._forward_pre_hooks) == 0


def test_boxes_are_those_of_the_resized_image(detector):
    found, _ = embed(detector, batch(1), [(BOXES, LABELS)])
    halved, _ = embed(detector, batch(2), [(BOXES / 2, LABELS)])
    other, _ = embed(detector, batch(1), [(BOXES / 2, LABELS)])
    assert np.array_equal(found, halved)
    assert not np.allclose(found, other)


def test_models_and_batches_without_embeddings(detector):
    none, labels = embed(detector, batch(1), [(BOXES[:0], LABELS[:0])])
    assert none.shape == (0, 0) and labels.shape == (0,)
    one_stage = nn.Module()
    one_stage.bbox_head = nn.Linear(2, 2)
    assert embedding_layer(one_stage) is None
    assert embed(one_stage, batch(1), [])[0].shape == (0, 0)


def test_cosines_by_hand():
    rows = np.array([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0], [3.0, 4.0]])
    means = np.array([[2, 0], [0, 0], [1.5, 3]])
    assert cosines(rows, np.array([0, 2, 2, 1]), means) == pytest.approx(
        [1, 1.5 / 11.25**0.5, 3 / 11.25**0.5, 0]
    )
