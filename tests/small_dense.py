"""mmdet's own dense detectors shrunk to a few channels, and pairs of them."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import small_heads
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from small import build
from small_heads import BACKBONE, shrink
from torch import Tensor, nn

from kd_det import TeacherDistill

CLASSES, SIDE = 10, 64

CONFIGS = {
    "retinanet": "retinanet/retinanet_r50_fpn_1x_coco.py",
    "gfl": "gfl/gfl_r50_fpn_1x_coco.py",
    "fcos": "fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py",
    "fcos_normed": "fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py",
    "atss": "atss/atss_r50_fpn_1x_coco.py",
    "rtmdet": "rtmdet/rtmdet_s_8xb32-300e_coco.py",
    "yolox": "yolox/yolox_s_8xb8-300e_coco.py",
    "paa": "paa/paa_r50_fpn_1x_coco.py",
    "vfnet": "vfnet/vfnet_r50_fpn_1x_coco.py",
    "ddod": "ddod/ddod_r50_fpn_1x_coco.py",
    "tood": "tood/tood_r50_fpn_1x_coco.py",
    "free_anchor": "free_anchor/freeanchor_r50_fpn_1x_coco.py",
    "yolov3": "yolo/yolov3_d53_8xb8-ms-608-273e_coco.py",
}
# Names of the last layer of the class branch; RTMDet's and YOLOX's heads have one for each level.
PREDICTORS = {
    "retinanet": "retina_cls",
    "gfl": "gfl_cls",
    "fcos": "conv_cls",
    "fcos_normed": "conv_cls",
    "atss": "atss_cls",
    "vfnet": "vfnet_cls",
    "rtmdet": "rtm_cls.{}",
    "yolox": "multi_level_conv_cls.{}",
}
CONVS = {
    "rtmdet": ("cls_convs.{}.{}", "reg_convs.{}.{}"),
    "yolox": ("multi_level_cls_convs.{}.{}", "multi_level_reg_convs.{}.{}"),
}
LEVELS = {"rtmdet": 3, "yolox": 3}


@cache
def _of_mmdet(name: str) -> ConfigDict:
    return Config.fromstring(f'_base_ = "mmdet::{CONFIGS[name]}"', ".py").model


def config(name: str, width: int = 8, convs: int = 2) -> ConfigDict:
    """The shrunk config of a detector."""
    model = copy.deepcopy(_of_mmdet(name))
    shrink(model)
    model.data_preprocessor.pop("batch_augments", None)
    model.backbone = dict(BACKBONE)
    model.neck.in_channels = [8, 16, 32, 64]
    head = model.bbox_head
    if name in LEVELS:
        model.backbone["out_indices"] = (1, 2, 3)
        model.neck.update(in_channels=[16, 32, 64], out_channels=width)
        head.in_channels = width
        if name == "rtmdet":
            # No SyncBN, which mmdet would not run on a CPU.
            model.neck.norm_cfg = head.norm_cfg = dict(type="BN")
    elif name == "yolov3":
        model.backbone["out_indices"] = (1, 2, 3)
        model.neck.update(in_channels=[64, 32, 16], out_channels=[32, 16, 8])
        head.update(in_channels=[32, 16, 8], out_channels=[16, 16, 16])
    else:
        model.neck.out_channels = head.in_channels = width
    head.feat_channels = width
    head.stacked_convs = convs
    for part in (head, head.get("norm_cfg") or {}):
        if part.get("norm_cfg", part).get("type") == "GN":
            part.get("norm_cfg", part)["num_groups"] = 4
    if name in ("gfl", "atss", "paa", "vfnet", "ddod", "tood") or name.startswith("fcos"):
        head.norm_cfg = dict(type="GN", num_groups=4)
    if name == "tood":
        head.stacked_convs = 3
        head.num_dcn = 0
    if name == "ddod":
        head.use_dcn = False  # a compiled mmcv refuses maps that are smaller than its kernel
    if name == "yolov3":
        del head["feat_channels"], head["stacked_convs"]
    return model


def detector(name: str, seed: int = 0, **options: Any) -> nn.Module:
    """A shrunk detector whose heads predict something."""
    torch.manual_seed(seed)
    model = build(config(name, **options))  # as torch initialises it, which is quicker
    for layer in model.bbox_head.modules():
        if isinstance(layer, nn.Conv2d):  # mmdet starts them near zero
            nn.init.normal_(
                layer.weight, std=(layer.in_channels * layer.weight[0, 0].numel()) ** -0.5
            )
            if layer.bias is not None:
                nn.init.normal_(layer.bias, std=0.1)
    return model


def batch() -> tuple[Tensor, list[DetDataSample]]:
    """Two images, with two objects and with one, without masks."""
    inputs, samples = small_heads.batch()
    for sample in samples:
        del sample.gt_instances.masks
    return inputs, samples


def pair(student: nn.Module, teacher: nn.Module, parts: dict, **options: Any) -> TeacherDistill:
    """A pair under the distiller's config ``parts``."""
    parts = dict(type="mmrazor.ConfigurableDistiller", **parts)
    with DefaultScope.overwrite_default_scope("mmdet"):
        return TeacherDistill(parts, teacher, student, **options).train()


def levels_of(name: str) -> int:
    return LEVELS.get(name, 5)


def layers(name: str, source: str, kind: str = "ModuleOutputs", **more: Any) -> dict[str, Any]:
    """The recorder of a layer of the head on all levels: of one layer, or one for each level."""
    return dict(
        type="kd_det.Pyramid",
        levels=[
            dict(
                type=kind,
                source=f"bbox_head.{source}".format(level),
                record_idx=0 if "{" in source else level,
                **more,
            )
            for level in range(levels_of(name))
        ],
    )


def convs(name: str, branch: str, depth: int) -> dict[str, Any]:
    """The recorder of a branch's maps after ``depth`` convolutions."""
    sources = CONVS.get(name, ("cls_convs.{1}", "reg_convs.{1}"))
    source = sources[branch == "box"]
    if name not in CONVS:
        return layers(name, source.replace("{1}", str(depth - 1)))
    first, _, _ = source.rpartition(".")
    return layers(name, f"{first}.{depth - 1}")


def embeddings(name: str) -> dict[str, Any]:
    """The recorder of the class branch's last maps."""
    return layers(name, PREDICTORS[name], "ModuleInputs", data_idx=0)
