"""What the project asks of a two-stage detector, kept in one place."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.detectors import TwoStageDetector
from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead
from mmdet.models.utils import unpack_gt_instances
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

    Losses of the RPN and of masks are left out; the box head's loss runs, since its inputs are
    the labels. Nothing runs for a batch without any sampled RoI.
    """
    feats = detector.extract_feat(inputs)
    proposals = detector.rpn_head.predict_by_feat(
        *detector.rpn_head(feats),
        batch_img_metas=[sample.metainfo for sample in data_samples],
        cfg=detector.train_cfg.get("rpn_proposal", detector.test_cfg.rpn),
    )
    head = detector.roi_head
    annotated, ignored, _ = unpack_gt_instances(data_samples)
    sampled = []
    for i, boxes in enumerate(proposals):
        boxes.priors = boxes.pop("bboxes")
        assigned = head.bbox_assigner.assign(boxes, annotated[i], ignored[i])
        own_feats = [level[i : i + 1] for level in feats]
        sampled.append(head.bbox_sampler.sample(assigned, boxes, annotated[i], feats=own_feats))
    if sum(len(result.priors) for result in sampled):
        head.bbox_loss(feats, sampled)


def score_ground_truth(
    detector: TwoStageDetector, inputs: Tensor, data_samples: SampleList
) -> Tensor:
    """Run the box head on the annotated boxes; returns their labels ``[n]``."""
    instances = [sample.gt_instances for sample in data_samples]
    boxes = [getattr(i.bboxes, "tensor", i.bboxes) for i in instances]
    score_rois(detector, inputs, bbox2roi(boxes))
    return torch.cat([i.labels for i in instances])
