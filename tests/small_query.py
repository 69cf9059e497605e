"""mmdet's own detectors with queries, shrunk, and pairs of them."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from small import build
from small_dense import batch
from small_heads import BACKBONE
from torch import nn

from kd_det import TeacherDistill

__all__ = ["batch"]  # two images, with two objects and with one
CLASSES, QUERIES = 10, 12

CONFIGS = {
    "detr": "detr/detr_r50_8xb2-150e_coco.py",
    "conditional": "conditional_detr/conditional-detr_r50_8xb2-50e_coco.py",
    "dab": "dab_detr/dab-detr_r50_8xb2-50e_coco.py",
    "deformable": "deformable_detr/deformable-detr_r50_16xb2-50e_coco.py",
    "deformable_refine": "deformable_detr/deformable-detr-refine_r50_16xb2-50e_coco.py",
    "deformable_two_stage": "deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py",
    "dino": "dino/dino-4scale_r50_8xb2-12e_coco.py",
}
# The encodings of places are made for 256 channels in these.
FIXED_WIDTH = ("conditional", "deformable_two_stage", "dino")
WIDTH = 32


@cache
def _of_mmdet(name: str) -> ConfigDict:
    return Config.fromstring(f'_base_ = "mmdet::{CONFIGS[name]}"', ".py").model


def config(name: str, width: int = WIDTH, layers: int = 2, **options: Any) -> ConfigDict:
    """The shrunk config of a detector."""
    model = copy.deepcopy(_of_mmdet(name))
    model.update({"num_queries": QUERIES, **options})
    model.test_cfg.max_per_img = 20
    model.backbone.update(BACKBONE)
    model.neck.in_channels = [8 * 2**stage for stage in model.backbone.out_indices]
    model.bbox_head.update(num_classes=CLASSES, embed_dims=256)
    model.encoder.num_layers, model.decoder.num_layers = 1, layers
    if name not in FIXED_WIDTH:
        _narrow(model, width)
    for part in (model.encoder, model.decoder):
        part.layer_cfg.ffn_cfg.feedforward_channels = 16
    return model


def _narrow(part: Any, width: int) -> None:
    for key, value in part.items():
        if isinstance(value, dict):
            _narrow(value, width)
        elif key in ("embed_dims", "out_channels"):
            part[key] = width
        elif key == "num_feats":
            part[key] = width // 2


def detector(name: str, seed: int = 0, **options: Any) -> nn.Module:
    """A shrunk detector that predicts something."""
    torch.manual_seed(seed)
    model = build(config(name, **options))  # as torch initialises it, which is quicker
    for layer in model.bbox_head.modules():
        if isinstance(layer, nn.Linear):  # mmdet starts scores and boxes near zero
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
            nn.init.normal_(layer.bias, std=0.1)
    return model


def pair(student: nn.Module, teacher: nn.Module, parts: dict, **options: Any) -> TeacherDistill:
    """A pair under the distiller's config ``parts``."""
    parts = dict(type="mmrazor.ConfigurableDistiller", **parts)
    with DefaultScope.overwrite_default_scope("mmdet"):
        return TeacherDistill(parts, teacher, student, **options).train()


def parts(random: int = 0, softmax: bool = False, weight: float = 1.0, **more: Any) -> dict:
    """KD of classes and boxes on the teacher's queries, and on so many that are drawn."""
    found: dict[str, dict] = dict(
        student_recorders={}, teacher_recorders={}, distill_losses={}, loss_forward_mappings={}
    )
    for name, number in (("own", 0), ("drawn", random)):
        if name == "drawn" and not random:
            continue
        cfg = dict(type="kd_det.SharedQueries", random=number)
        found["teacher_recorders"][name] = cfg
        found["student_recorders"][name] = dict(cfg, **more)
        kd, box = f"loss_kd_{name}", f"loss_box_{name}"
        found["distill_losses"][kd] = dict(
            type="kd_det.QueryKDLoss", softmax=softmax, loss_weight=weight
        )
        found["distill_losses"][box] = dict(
            type="kd_det.QueryBoxLoss", softmax=softmax, loss_weight=weight
        )
        record = dict(recorder=name, from_student=True), dict(recorder=name, from_student=False)
        found["loss_forward_mappings"][kd] = dict(
            s_logits=dict(record[0], data_idx=0), t_logits=dict(record[1], data_idx=0)
        )
        found["loss_forward_mappings"][box] = dict(
            s_boxes=dict(record[0], data_idx=1),
            t_boxes=dict(record[1], data_idx=1),
            t_logits=dict(record[1], data_idx=0),
        )
    return found
