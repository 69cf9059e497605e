"""The pre-pass asks a detector for boxes alone."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config
from small import build

from kd_det.algorithms import roi, wiring

MASK_RCNN = """
_base_ = "mmdet::_base_/models/mask-rcnn_r50_fpn.py"
model = dict(
    backbone=dict(depth=18, base_channels=8, stem_channels=8, frozen_stages=-1, init_cfg=None),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16),
        bbox_head=dict(in_channels=16, fc_out_channels=32),
        mask_roi_extractor=dict(out_channels=16),
        mask_head=dict(in_channels=16, conv_out_channels=16),
    ),
)
"""


@pytest.fixture(scope="module")
def mask_rcnn(tmp_path_factory: pytest.TempPathFactory) -> torch.nn.Module:
    path = tmp_path_factory.mktemp("config") / "mask_rcnn.py"
    path.write_text(MASK_RCNN)
    return build(Config.fromfile(path).model).eval()


def test_mask_teacher_needs_no_masks(mask_rcnn):
    inputs, samples = wiring.dry_run_input()
    del samples[0].gt_instances.masks
    labels: list[tuple] = []
    mask_rcnn.roi_head.mask_head.register_forward_hook(lambda *_: pytest.fail("mask head ran"))
    mask_rcnn.roi_head.bbox_head.loss_cls.register_forward_hook(lambda _, x, __: labels.append(x))
    with torch.no_grad():
        roi.sample_and_score(mask_rcnn, inputs, samples)
    assert len(labels) == 1
    assert set(labels[0][1].tolist()) == {0, 80}  # the object, and background
