"""Boxes and scores of two-stage detectors and cascades, for a batch."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.dense_heads import RPNHead
from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from torch import Tensor, nn

from kd_det.errors import UnsupportedTypeError
from kd_det.export.onnx import ops
from kd_det.export.onnx.dense import class_scores, grid_priors, iou_threshold, rows


def check_heads(model: Any) -> None:
    """Raise ``UnsupportedTypeError`` unless both stages predict in a way known here."""
    roi_head = model.roi_head
    ops.require_methods(model.rpn_head, RPNHead, "_predict_by_feat_single", "_bbox_post_process")
    if isinstance(roi_head, CascadeRoIHead):
        ops.require_methods(
            roi_head, CascadeRoIHead, "predict_bbox", "_refine_roi", "_bbox_forward"
        )
    else:
        ops.require_methods(roi_head, StandardRoIHead, "predict_bbox", "_bbox_forward")
    for extractor in _stages(roi_head.bbox_roi_extractor):
        ops.require_methods(extractor, SingleRoIExtractor, "forward", "map_roi_levels")
        for layer in extractor.roi_layers:
            if type(layer).__name__ != "RoIAlign" or layer.pool_mode != "avg":
                raise UnsupportedTypeError(
                    f"{type(layer).__name__} cannot be exported to ONNX: expected RoIAlign with "
                    "pool_mode='avg'"
                )
    for head in _stages(roi_head.bbox_head):
        ops.require_methods(
            head, BBoxHead, "predict_by_feat", "_predict_by_feat_single", "regress_by_class"
        )
        ops.require_plain_scores(head)
    ops.require_plain_scores(model.rpn_head)
    iou_threshold(model.rpn_head.test_cfg, "the RPN")
    iou_threshold(roi_head.test_cfg, "the RoI head")


def _stages(part: Any) -> list[Any]:
    return list(part) if isinstance(part, nn.ModuleList) else [part]


def two_stage_detections(
    model: Any, features: Any, extent: ops.Extent
) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, scores and labels as :func:`kd_det.export.onnx.ops.detections` returns them."""
    limits = extent.limits
    proposals, valid = _proposals(model.rpn_head, features, limits)
    roi_head, cfg = model.roi_head, model.roi_head.test_cfg
    heads = _stages(roi_head.bbox_head)
    extractors = _stages(roi_head.bbox_roi_extractor)
    batch, count = proposals.shape[:2]
    image = torch.arange(batch, device=proposals.device).to(proposals)
    image = image[:, None].expand(-1, count).reshape(-1, 1)
    boxes, logits = proposals.reshape(-1, 4), []
    for stage, (head, extractor) in enumerate(zip(heads, extractors)):
        pooled = _roi_features(extractor, features, torch.cat([image, boxes], 1))
        if roi_head.with_shared_head:
            pooled = roi_head.shared_head(pooled)
        of_stage, deltas = head(pooled)
        logits.append(of_stage)
        if stage < len(heads) - 1:
            label = of_stage[:, :-1].argmax(1)
            boxes = head.regress_by_class(boxes, label, deltas, dict(img_shape=None))
            if head.bbox_coder.clip_border:
                boxes = ops.clip(boxes.reshape(batch, count, 4), limits).reshape(-1, 4)
    scores = (sum(logits) / len(logits)).softmax(-1)[:, :-1]
    scores = scores.reshape(batch, count, -1) * valid[..., None]
    scores = (scores * (scores > cfg.score_thr)).transpose(1, 2)
    boxes = _final_boxes(heads[-1], boxes, deltas, limits, batch, count)
    return ops.detections(boxes, scores, iou_threshold(cfg, "the RoI head"), cfg.max_per_img)


def _proposals(rpn: Any, features: Any, limits: Tensor) -> tuple[Tensor, Tensor]:
    """The RPN's boxes `[B, P, 4]`, NMS by level, and which of them are proposals `[B, P]`."""
    cfg, coder = rpn.test_cfg, rpn.bbox_coder
    logits, predictions = rpn(features)
    all_boxes, all_scores = [], []
    for maps, predicted, priors in zip(logits, predictions, grid_priors(rpn, logits)):
        scores = class_scores(rpn, rows(maps, rpn.cls_out_channels))[..., 0]
        priors = priors[None].expand(scores.shape[0], -1, -1)
        predicted = rows(predicted, coder.encode_size)
        if cfg.nms_pre > 0:
            scores, index = ops.top(scores, cfg.nms_pre)
            scores = scores.clamp(min=0)
            priors, predicted = ops.take(priors, index), ops.take(predicted, index)
        boxes = ops.decode(coder, priors, predicted, limits)
        scores = ops.without_small(scores, boxes, cfg.get("min_bbox_size", -1))
        iou = iou_threshold(cfg, "the RPN")
        all_boxes.append(boxes)
        all_scores.append(ops.suppress(boxes, scores[:, None], iou, cfg.max_per_img)[:, 0])
    best, index = ops.top(torch.cat(all_scores, 1), cfg.max_per_img)
    return ops.take(torch.cat(all_boxes, 1), index), best > 0


def _roi_features(extractor: Any, features: Any, rois: Tensor) -> Tensor:
    """RoIAlign on the level of each RoI.

    MMDetection skips levels without RoIs and writes into the others' places; here each level has
    its part, maybe none, and the parts are put in order.
    """
    maps = features[: extractor.num_inputs]
    if len(maps) == 1:
        return ops.roi_align(maps[0], rois, extractor.roi_layers[0])
    levels = extractor.map_roi_levels(rois, len(maps))
    places = [(levels == level).nonzero()[:, 0] for level in range(len(maps))]
    parts = [
        ops.roi_align(x, rois[place], layer)
        for x, place, layer in zip(maps, places, extractor.roi_layers)
    ]
    place = torch.cat(places)
    order = torch.zeros_like(place).scatter(
        0, place, torch.arange(rois.shape[0], device=place.device)
    )
    return torch.cat(parts)[order]


def _final_boxes(
    head: Any, boxes: Tensor, deltas: Tensor | None, limits: Tensor, batch: Any, count: Any
) -> Tensor:
    """`[B, P, 4]`, or `[B, C, P, 4]` of a head with boxes for each class."""
    if deltas is None:
        return ops.clip(boxes.reshape(batch, count, 4), limits)
    classes = 1 if head.reg_class_agnostic else head.num_classes
    each = boxes[:, None].expand(-1, classes, -1).reshape(-1, 4)
    decoded = head.bbox_coder.decode(each, deltas.reshape(-1, 4)).reshape(batch, -1, 4)
    decoded = ops.clip(decoded, limits) if head.bbox_coder.clip_border else decoded
    decoded = decoded.reshape(batch, count, classes, 4)
    return decoded[:, :, 0] if classes == 1 else decoded.transpose(1, 2)
