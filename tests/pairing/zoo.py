"""Pairs out of mmdet's zoo, and students that derive from it."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from mmengine.config import Config
from small import build

FASTER = "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py"
CASCADE = "mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py"
C4 = "mmdet::faster_rcnn/faster-rcnn_r50-caffe-c4_ms-1x_coco.py"

# What a user would write to have a smaller backbone in mmdet's Faster R-CNN.
STUDENTS = {
    "r18": dict(
        backbone=dict(
            depth=18, init_cfg=dict(type="Pretrained", checkpoint="torchvision://resnet18")
        ),
        neck=dict(in_channels=[64, 128, 256, 512]),
    ),
    "mv2": dict(
        backbone=dict(
            _delete_=True,
            type="MobileNetV2",
            out_indices=(1, 2, 4, 6),
            norm_eval=True,
            init_cfg=dict(type="Pretrained", checkpoint="open-mmlab://mmdet/mobilenet_v2"),
        ),
        neck=dict(in_channels=[24, 32, 96, 320]),
    ),
    # Half the channels in the pyramid, a quarter of the embedding, and no fifth level.
    "narrow": dict(
        backbone=dict(depth=18, init_cfg=None),
        neck=dict(in_channels=[64, 128, 256, 512], out_channels=128, num_outs=4),
        rpn_head=dict(
            in_channels=128,
            feat_channels=128,
            anchor_generator=dict(strides=[4, 8, 16, 32]),
        ),
        roi_head=dict(
            bbox_roi_extractor=dict(out_channels=128),
            bbox_head=dict(in_channels=128, fc_out_channels=256),
        ),
    ),
}


def write(path: Path, base: str = FASTER, **model: object) -> str:
    """A config that derives from ``base``; returns its path."""
    path.write_text(f"_base_ = {base!r}\nmodel = {model!r}\n")
    return str(path)


def student(name: str, folder: Path) -> str:
    """A config of ``STUDENTS`` as a file, or the name as it is, for one of the zoo."""
    return write(folder / f"{name}.py", **STUDENTS[name]) if name in STUDENTS else name


def save_teacher(cfg: Config, path: Path) -> str:
    """Random weights of a config's teacher."""
    torch.save(build(copy.deepcopy(cfg.model.teacher)).state_dict(), path)
    return str(path)
