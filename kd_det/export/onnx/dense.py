"""Boxes and scores of dense heads, for a batch: what ``predict_by_feat`` does for one image."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.dense_heads import GFLHead, YOLOXHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from torch import Tensor

from kd_det.errors import UnsupportedTypeError
from kd_det.export.onnx import ops

# Limit where a config has none, as YOLOX's: more than COCO's evaluation reads.
MOST_DETECTIONS = 1000
# From here on nms_pre is above the number of priors of a level, as RTMDet's 30000, and selecting
# them would only pad.
ALL_PRIORS = 10000
_METHODS = ("predict_by_feat", "_predict_by_feat_single", "_bbox_post_process")


def check_head(head: Any) -> None:
    """Raise ``UnsupportedTypeError`` unless the head predicts boxes in a way known here."""
    own = [name for name in _METHODS if not _known(head, name)]
    if own:
        raise UnsupportedTypeError(
            f"{type(head).__name__} cannot be exported to ONNX: it has a {own[0]} of its own. "
            "Dense heads that decode as MMDetection's BaseDenseHead (RetinaNet, FCOS, ATSS, "
            "RTMDet ...), GFLHead and YOLOXHead can"
        )
    ops.require_plain_scores(head)
    iou_threshold(head.test_cfg, type(head).__name__)


def iou_threshold(cfg: Any, owner: str) -> float:
    """The IoU threshold of a test config's NMS, if ONNX's operator computes the same.

    Raises:
        UnsupportedTypeError: If it does not.
    """
    nms = dict(cfg.get("nms") or {})
    kind = nms.pop("type", None)
    other = {
        key: value
        for key, value in nms.items()
        if key not in ("iou_threshold", "split_thr", "max_num") and value
    }
    if kind != "nms" or other:
        raise UnsupportedTypeError(
            f"the {kind or 'missing NMS'} of {owner} {other or ''} has no ONNX operator: "
            "expected test_cfg.nms=dict(type='nms', iou_threshold=...)"
        )
    return float(nms["iou_threshold"])


def _known(head: Any, name: str) -> bool:
    method = getattr(type(head), name, None)
    return any(
        method is getattr(kind, name)
        for kind in (BaseDenseHead, GFLHead, YOLOXHead)
        if kind is BaseDenseHead or isinstance(head, kind)
    )


def dense_detections(
    model: Any, features: Any, extent: ops.Extent
) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, scores and labels as :func:`kd_det.export.onnx.ops.detections` returns them."""
    head = model.bbox_head
    cfg = head.test_cfg
    predict = _yolox if isinstance(head, YOLOXHead) else _levels
    boxes, scores = predict(head, head(features), extent.limits)
    iou = iou_threshold(cfg, type(head).__name__)
    count = cfg.get("max_per_img", MOST_DETECTIONS)
    return ops.detections(boxes, scores.transpose(1, 2), iou, count)


def rows(x: Tensor, channels: int) -> Tensor:
    """`[B, A * channels, H, W]` -> `[B, H * W * A, channels]`."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, channels)


def class_scores(head: Any, logits: Tensor) -> Tensor:
    """Probabilities of the classes, without background."""
    return logits.sigmoid() if head.use_sigmoid_cls else logits.softmax(-1)[..., :-1]


def grid_priors(head: Any, maps: Any, **options: Any) -> list[Tensor]:
    """The head's anchors or points, for maps of any size."""
    sizes = [each.shape[-2:] for each in maps]
    kind = dict(dtype=maps[0].dtype, device=maps[0].device)
    return head.prior_generator.grid_priors(sizes, **kind, **options)


def _levels(head: Any, outputs: Any, limits: Tensor) -> tuple[Tensor, Tensor]:
    cfg, coder = head.test_cfg, head.bbox_coder
    logits, predictions, *factors = outputs
    all_boxes, all_scores = [], []
    priors = grid_priors(head, logits)
    for level, (maps, predicted) in enumerate(zip(logits, predictions)):
        scores = class_scores(head, rows(maps, head.cls_out_channels))
        scores = scores * (scores > cfg.get("score_thr", 0))
        of_level = priors[level]
        if isinstance(head, GFLHead):
            distances = head.integral(predicted.permute(0, 2, 3, 1))
            predicted = distances.reshape(scores.shape[0], -1, 4)
            predicted = predicted * head.prior_generator.strides[level][0]
            of_level = head.anchor_center(of_level)
        else:
            predicted = rows(predicted, coder.encode_size)
        of_level = of_level[None].expand(scores.shape[0], -1, -1)
        parts = [of_level, predicted, *(rows(maps[level], 1).sigmoid() for maps in factors)]
        scores, parts = _best_pairs(scores, parts, cfg.get("nms_pre", -1))
        boxes = ops.decode(coder, parts[0], parts[1], limits)
        for factor in parts[2:]:
            scores = scores * factor
        large = ops.without_small(scores.new_ones(1), boxes, cfg.get("min_bbox_size", -1))
        all_boxes.append(boxes)
        all_scores.append(scores * large[..., None])
    return torch.cat(all_boxes, 1), torch.cat(all_scores, 1)


def _best_pairs(scores: Tensor, parts: list[Tensor], k: int) -> tuple[Tensor, list[Tensor]]:
    """Keep the k best pairs of prior and class of a level; the others get score 0.

    They are pairs of the k priors whose best class is best, so only those are kept.

    Args:
        scores: `[B, N, C]`.
        parts: `[B, N, D]`, to be selected too.
        k: ``nms_pre``; all if it is not positive.
    """
    if k <= 0:
        return scores, parts
    if k < ALL_PRIORS:
        best, index = ops.top(scores.amax(-1), k)
        scores = ops.take(scores, index) * (best > 0)[..., None]
        parts = [ops.take(each, index) for each in parts]
    least = ops.top(scores.flatten(1), k)[0][:, -1]
    return scores * (scores >= least[:, None, None]), parts


def _yolox(head: Any, outputs: Any, limits: Tensor) -> tuple[Tensor, Tensor]:
    """YOLOX's: the best class of each point alone, times the objectness; boxes are not clipped."""
    logits, predictions, objects = outputs
    priors = torch.cat(grid_priors(head, logits, with_stride=True))
    scores = torch.cat([rows(x, head.cls_out_channels) for x in logits], 1).sigmoid()
    objectness = torch.cat([rows(x, 1) for x in objects], 1).sigmoid()
    boxes = head._bbox_decode(priors, torch.cat([rows(x, 4) for x in predictions], 1))
    best, label = scores.max(-1, keepdim=True)
    best = best * objectness
    best = best * (best >= head.test_cfg.score_thr)
    return boxes, best * (label == torch.arange(head.cls_out_channels, device=label.device))
