"""Boxes and scores of a DETR's queries, for a batch; there is no NMS."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmdet.models import detectors
from mmdet.models.dense_heads import DETRHead
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from torch import Tensor, nn

from kd_det.errors import UnsupportedTypeError
from kd_det.export.onnx import ops


def check_queries(model: Any) -> None:
    """Raise ``UnsupportedTypeError`` unless queries are chosen and read in a way known here."""
    if isinstance(model, getattr(detectors, "DDQDETR", ())):  # since mmdet 3.1
        raise UnsupportedTypeError(
            "DDQDETR cannot be exported to ONNX: the NMS by which it chooses its queries gives "
            "each image a number of its own"
        )
    ops.require_methods(model.bbox_head, DETRHead, "_predict_by_feat_single")


def query_detections(
    model: Any, features: Any, extent: ops.Extent
) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, scores and labels as :func:`kd_det.export.onnx.ops.detections` returns them."""
    head, limits = model.bbox_head, extent.limits
    with _masked_padding(model, ~extent.inside):
        inputs = model.forward_transformer(features, _samples(features))
    logits, coordinates = (each[-1] for each in head(**inputs))
    boxes = ops.clip(bbox_cxcywh_to_xyxy(coordinates) * limits, limits)
    count = head.test_cfg.get("max_per_img", model.num_queries)
    if head.loss_cls.use_sigmoid:
        return ops.detections(boxes, logits.sigmoid().transpose(1, 2), None, count)
    scores = logits.softmax(-1)[..., :-1]
    best, label = scores.max(-1, keepdim=True)
    only = best * (label == torch.arange(scores.shape[-1], device=label.device))
    return ops.detections(boxes, only.transpose(1, 2), None, count)


def _samples(features: Sequence[Tensor]) -> list[DetDataSample]:
    """Samples without padding."""
    size = (1, 1)
    sample = DetDataSample(metainfo=dict(batch_input_shape=size, img_shape=size))
    return [sample] * features[0].shape[0]


@contextmanager
def _masked_padding(model: Any, padding: Tensor) -> Iterator[None]:
    """Let the transformer mask what is True in ``padding`` `[B, H, W]`.

    MMDetection makes masks by loops over sizes in Python, and none while it exports.
    """
    original = model.pre_transformer

    def pre_transformer(features: Sequence[Tensor], samples: Any) -> tuple[dict, dict]:
        encoder, decoder = original(features, samples)
        deformable = "valid_ratios" in encoder  # reads all levels; the others the last
        levels = features if deformable else features[-1:]
        masks = [
            nn.functional.interpolate(padding[:, None].float(), size=each.shape[-2:])[:, 0] > 0
            for each in levels
        ]
        positions = [model.positional_encoding(mask).flatten(2).transpose(1, 2) for mask in masks]
        if deformable:
            positions = [each + own for each, own in zip(positions, model.level_embed)]
            ratios = torch.stack([model.get_valid_ratio(mask) for mask in masks], 1)
            encoder["valid_ratios"] = decoder["valid_ratios"] = ratios
        else:
            decoder["memory_pos"] = positions[0]
        mask = torch.cat([each.flatten(1) for each in masks], 1)
        encoder.update(feat_mask=mask, feat_pos=torch.cat(positions, 1))
        decoder["memory_mask"] = mask
        return encoder, decoder

    model.pre_transformer = pre_transformer
    try:
        yield
    finally:
        del model.pre_transformer
