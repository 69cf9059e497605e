"""Wiring faults are errors when the model is built, and name both sides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.models import DetDataPreprocessor
from small import build

from kd_det.algorithms import WiringError
from kd_det.algorithms.dry_run import blank_batch

REVIEW = "model.distiller.connectors.review"
FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "student source": (
        {"model.distiller.student_recorders.fpn.source": "nekc"},
        r"student recorder 'fpn' has source 'nekc'.*FasterRCNN has no such module; it has.*neck",
    ),
    "teacher source": (
        {"model.distiller.teacher_recorders.logits.source": "roi_head.bbox_head.fc_class"},
        r"teacher recorder 'logits'.*roi_head.bbox_head.fc_class.*roi_head.bbox_head.fc_cls",
    ),
    "unknown recorder": (
        {"model.distiller.loss_forward_mappings.loss_kd.preds_T.recorder": "logit"},
        r"'preds_T' of distillation loss 'loss_kd' names teacher recorder 'logit', but there are",
    ),
    "unknown connector": (
        {"model.distiller.loss_forward_mappings.loss_review.s_feats.connector": "fusion"},
        r"names student connector 'fusion', but there are \['review'\]",
    ),
    "loss without mapping": (
        {"model.distiller.distill_losses.loss_more": dict(type="kd_det.HCLLoss")},
        r"'loss_more' has no entry in loss_forward_mappings.*never be computed",
    ),
    "mapping without loss": (
        {"model.distiller.loss_forward_mappings.loss_mroe": {}},
        r"loss_forward_mappings names 'loss_mroe', but distill_losses has",
    ),
    "fewer levels": (
        {f"{REVIEW}.in_channels": [64] * 4, f"{REVIEW}.out_channels": [64] * 4},
        r"loss_review.*student neck -> review.*5 x.*teacher neck.*built for 4 .*levels, got 5",
    ),
    "student channels": (
        {f"{REVIEW}.in_channels": [32] * 5},
        r"loss_review.*level 4 expected a student map \[N, 32, H, W\], got \[1, 64,",
    ),
    "teacher channels": (
        {f"{REVIEW}.out_channels": [32] * 5},
        r"HCL level 0.*student \[1, 32, 40, 40\] and teacher \[1, 64, 40, 40\]",
    ),
    "embedding size of the loss": (
        {"model.distiller.distill_losses.loss_nd.embed_dim": 256},
        r"loss_nd.*s_emb \[64, 128\].*centers \[11, 256\]",
    ),
    "unknown preprocessing": (
        {"model.teacher.data_preprocessor": dict(type="BaseDataPreprocessor", _delete_=True)},
        r"preprocess images differently.*student .*'DetData.*123.6.*teacher .*'BaseData",
    ),
    "padding": (
        {"model.teacher.data_preprocessor.pad_size_divisor": 128},
        r"loss_review.*student \[1, 64, 40, 40\] and teacher \[1, 64, 64, 64\].*if that is the "
        r"reason, set the student's data_preprocessor.pad_size_divisor to the teacher's, 128",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_an_error_at_build_time(cfg, fault: str):
    options, message = FAULTS[fault]
    cfg.merge_from_dict(options)
    with pytest.raises(WiringError, match=f"(?s){message}"):
        build(cfg.model)


def test_padding_that_gives_maps_of_one_size_fits(cfg):
    for side in ("teacher", "architecture"):
        cfg.model[side].data_preprocessor.pad_size_divisor = 128
    build(cfg.model)


def test_padding_is_no_hint_where_both_pad_to_one_size(cfg):
    cfg.merge_from_dict(FAULTS["teacher channels"][0])
    with pytest.raises(WiringError) as error:
        build(cfg.model)
    assert "pad_size_divisor" not in str(error.value)


@pytest.mark.parametrize(("one", "other"), [(1, 8), (8, 16), (16, 32), (32, 64), (64, 128)])
def test_dry_run_tells_divisors_apart(one: int, other: int):
    """In the size of a map of stride 4, the finest of a pyramid."""
    sides = []
    for divisor in (one, other):
        preprocessor = DetDataPreprocessor(pad_size_divisor=divisor)
        inputs, samples = blank_batch(preprocessor)
        assert inputs.shape[-1] % divisor == 0
        assert samples[0].batch_input_shape == inputs.shape[-2:]
        sides.append(-(-inputs.shape[-1] // 4))
    assert sides[0] < sides[1]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (dict(fc_out_channels=256), r"s_emb \[64, 128\], t_emb \[64, 256\].*connector"),
        (dict(num_classes=20), r"the student has 10 classes and the teacher 20"),
    ],
)
def test_sizes_of_box_heads_name_both_sides(cfg, tmp_path: Path, option: dict, message: str):
    cfg.model.teacher.roi_head.bbox_head.update(option)
    torch.save(build(cfg.model.teacher).state_dict(), tmp_path / "teacher.pth")
    cfg.model.teacher_ckpt = str(tmp_path / "teacher.pth")
    with pytest.raises(WiringError, match=message):
        build(cfg.model)


def test_the_old_name_for_two_stage_pairs_refuses_others(cfg):
    cfg.model.type = "kd_det.RoITeacherDistill"
    cfg.model.teacher = dict(
        type="RetinaNet",
        backbone=cfg.model.teacher.backbone,
        neck=cfg.model.teacher.neck,
        bbox_head=dict(
            type="RetinaHead",
            num_classes=10,
            in_channels=64,
            anchor_generator=dict(type="AnchorGenerator", ratios=[1.0], scales=[4], strides=[8]),
        ),
    )
    with pytest.raises(TypeError, match=r"the teacher is a RetinaNet"):
        build(cfg.model)


DELIVERY = dict(
    type="MethodOutputs",
    max_keep_data=1,
    method_path="mmdet.models.detectors.FasterRCNN.extract_feat",
)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("teacher_ckpt", None, "expected teacher_ckpt.*found None"),
        ("teacher_trainable", True, "expected teacher_trainable=False, found True"),
        ("student_trainable", False, "expected student_trainable=True, found False"),
        ("calculate_student_loss", False, "expected calculate_student_loss=True, found False"),
        (
            "distiller.distill_deliveries",
            dict(x=DELIVERY),
            r"after the student's forward pass.*deliver.*\['x'\]",
        ),
        (
            "distiller.distill_losses.review",
            dict(type="kd_det.HCLLoss"),
            "'loss' in its name.*found 'review'",
        ),
    ],
)
def test_an_option_that_does_not_fit_is_refused(cfg, option: str, value: Any, message: str):
    cfg.merge_from_dict({f"model.{option}": value})
    with pytest.raises(ValueError, match=message):
        build(cfg.model)
