"""What the project asks of a two-stage detector, kept in one place."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.detectors import TwoStageDetector
from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox2roi
from torch import Tensor, nn

# Where MMRazor recorders find things in mmdet's Standard RoI head.
ROI_EXTRACTOR = "roi_head.bbox_roi_extractor"


def require_two_stage(detector: nn.Module, who: str) -> None:
    """Raise ``TypeError`` unless ``detector`` has one RoI box head that scores given RoIs."""
    head: Any = getattr(detector, "roi_head", None)
    supported = isinstance(head, StandardRoIHead) and not isinstance(head, CascadeRoIHead)
    if not isinstance(detector, TwoStageDetector) or not supported or not head.with_bbox:
        raise TypeError(
            "kd_det.RoITeacherDistill needs a two-stage detector with a StandardRoIHead (Faster "
            f"R-CNN and its kin) on both sides; the {who} is a {type(detector).__name__} with "
            f"roi_head {type(head).__name__}"
        )


def num_classes(detector: TwoStageDetector) -> int:
    """Foreground classes of the RoI box head."""
    return detector.roi_head.bbox_head.num_classes


def score_rois(detector: TwoStageDetector, inputs: Tensor, rois: Tensor) -> None:
    """Run pyramid and box head on given RoIs ``[n, 5]``; recorders take what they want."""
    feats = detector.extract_feat(inputs)
    detector.roi_head._bbox_forward(feats, rois)


def sample_and_score(detector: TwoStageDetector, inputs: Tensor, data_samples: SampleList) -> None:
    """Run the box head on the detector's own proposals, assigned and sampled as in training.

    The RPN's losses are left out; the box head's loss runs, since its inputs are the labels.
    """
    feats = detector.extract_feat(inputs)
    proposals = detector.rpn_head.predict_by_feat(
        *detector.rpn_head(feats),
        batch_img_metas=[sample.metainfo for sample in data_samples],
        cfg=detector.train_cfg.rpn_proposal,
    )
    detector.roi_head.loss(feats, proposals, data_samples)


def score_ground_truth(
    detector: TwoStageDetector, inputs: Tensor, data_samples: SampleList
) -> Tensor:
    """Run the box head on the annotated boxes; returns their labels ``[n]``."""
    instances = [sample.gt_instances for sample in data_samples]
    boxes = [getattr(i.bboxes, "tensor", i.bboxes) for i in instances]
    score_rois(detector, inputs, bbox2roi(boxes))
    return torch.cat([i.labels for i in instances])
