"""Boxes and scores of a DETR's queries, for a batch; there is no NMS."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.dense_heads import DETRHead
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from torch import Tensor

from kd_det.export.onnx import ops


def check_queries(model: Any) -> None:
    """Raise ``UnsupportedTypeError`` unless the head's queries are read as DETRHead's are."""
    ops.require_methods(model.bbox_head, DETRHead, "_predict_by_feat_single")


def query_detections(model: Any, features: Any, limits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, scores and labels as :func:`kd_det.export.onnx.ops.detections` returns them.

    The whole input counts as image: padding is not masked, as MMDetection does it while it exports.
    """
    head, size = model.bbox_head, (1, 1)
    # Equal sizes, so that the padding mask is empty.
    sample = DetDataSample(metainfo=dict(batch_input_shape=size, img_shape=size))
    inputs = model.forward_transformer(features, [sample] * features[0].shape[0])
    logits, coordinates = (each[-1] for each in head(**inputs))
    boxes = ops.clip(bbox_cxcywh_to_xyxy(coordinates) * limits, limits)
    count = head.test_cfg.get("max_per_img", model.num_queries)
    if head.loss_cls.use_sigmoid:
        return ops.detections(boxes, logits.sigmoid().transpose(1, 2), None, count)
    scores = logits.softmax(-1)[..., :-1]
    best, label = scores.max(-1, keepdim=True)
    only = best * (label == torch.arange(scores.shape[-1], device=label.device))
    return ops.detections(boxes, only.transpose(1, 2), None, count)
