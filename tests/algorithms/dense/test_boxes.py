"""Decoded boxes are those that the head itself predicts."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import ConfigDict
from small_dense import batch, detector

from kd_det.algorithms import BoxesRecorder, WiringError
from kd_det.algorithms.dense import decode_boxes
from kd_det.losses import BoxKDLoss

HEADS = ["retinanet", "gfl", "fcos", "fcos_normed", "atss", "rtmdet", "yolox", "ddod"]


@pytest.mark.parametrize("name", HEADS)
def test_equal_the_heads_predictions(name):
    model = detector(name).eval()
    recorder = BoxesRecorder("bbox_head")
    recorder.initialize(model)
    inputs, samples = batch()
    with torch.no_grad(), recorder:
        outs = model.bbox_head(model.extract_feat(inputs))
    found = recorder.get_record_data()
    assert all(x.shape[1] == outs[1][0].shape[1] or name == "gfl" for x in found)
    metas = [dict(sample.metainfo, img_shape=(10**6, 10**6)) for sample in samples]
    cfg = ConfigDict(score_thr=-1.0, nms_pre=-1, score_voting=False, nms=dict(type="nms"))
    predicted = model.bbox_head.predict_by_feat(
        *outs, batch_img_metas=metas, cfg=cfg, with_nms=False
    )
    for n, expected in enumerate(predicted):
        own = torch.cat([x[n].permute(1, 2, 0).reshape(-1, 4) for x in found])
        # The head clips boxes to the image, repeats them for each class and sorts by score.
        corners = [x if name == "yolox" else x.clamp(min=0) for x in (own, expected.bboxes)]
        nearest = torch.cdist(*corners, compute_mode="donot_use_mm_for_euclid_dist")
        assert nearest.amin(dim=1).max() < 1e-3
        assert nearest.amin(dim=0).max() < 1e-3


@pytest.mark.parametrize("name", ["fcos_normed", "gfl"])
def test_training_and_evaluation_give_the_same_boxes(name):
    model = detector(name).eval()
    feats = [x.detach() for x in model.extract_feat(batch()[0])]
    expected = decode_boxes(model.bbox_head, model.bbox_head(feats)[1])
    model.bbox_head.train()  # group norms, which are the same in both
    for a, b in zip(expected, decode_boxes(model.bbox_head, model.bbox_head(feats)[1])):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)


def test_sizes_that_overflow_keep_losses_and_gradients_finite():
    head = detector("yolox").bbox_head
    maps = [torch.randn(1, 4, side, side) for side in (8, 4, 2)]
    maps[0][0, 2:, 0, 0] = 200  # a size of exp(200)
    preds = [x.clone().requires_grad_() for x in maps]
    boxes = decode_boxes(head, preds)
    scores = [torch.randn(1, 3, *x.shape[2:]) for x in maps]
    loss = BoxKDLoss(giou=True)(boxes, decode_boxes(head, maps), scores, [-x for x in scores])
    other = BoxKDLoss()(boxes, [x + 1 for x in decode_boxes(head, maps)], scores, scores)
    for grad in torch.autograd.grad(loss + other, preds):
        assert grad.isfinite().all()
    assert loss.isfinite() and other.isfinite()


@pytest.mark.parametrize("name", ["vfnet", "tood", "yolov3"])
def test_heads_that_are_not_supported_are_named(name):
    model = detector(name)
    head = type(model.bbox_head).__name__
    with pytest.raises(TypeError, match=f"how a {head} decodes .*RetinaNet, FCOS"):
        BoxesRecorder("bbox_head").initialize(model)


def test_a_head_that_is_not_there_is_named():
    with pytest.raises(WiringError, match="'head', but the detector GFL has no such module"):
        BoxesRecorder("head").initialize(detector("gfl"))
