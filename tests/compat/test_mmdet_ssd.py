"""SSD finds objects in evaluation too."""

from __future__ import annotations

PREDICT = """
import mmdet.models
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope

model = Config.fromstring("_base_ = ['mmdet::ssd/ssd300_coco.py']", ".py").model
model.test_cfg.score_thr = 0.0
with DefaultScope.overwrite_default_scope("mmdet"):
    head = MODELS.build(dict(model.bbox_head, test_cfg=model.test_cfg))
maps = zip(model.bbox_head.in_channels, (38, 19, 10, 5, 3, 1))
outputs = head([torch.rand(1, channels, side, side) for channels, side in maps])
metas = [dict(img_shape=(300, 300), scale_factor=(1.0, 1.0))]
found = head.predict_by_feat(*outputs, batch_img_metas=metas)
assert len(found[0].bboxes) > 0
"""
LEFT_OUT = {"mmdet_ssd": PREDICT}


def test_breaks_without_the_patch(left_out):
    from mmdet.models.dense_heads.base_dense_head import BaseDenseHead

    asked = "loss_cls" in BaseDenseHead._predict_by_feat_single.__code__.co_names
    assert ("no attribute 'loss_cls'" in (left_out["mmdet_ssd"] or "")) == asked


def test_ssd_predicts():
    exec(PREDICT, {})
