"""Backbones of the distillation papers' classification studies that mmpretrain lacks."""

from __future__ import annotations

from kd_det.backbones.cifar_mobile import (
    cifar_mobilenet_v2,
    cifar_shufflenet_v1,
    cifar_shufflenet_v2,
)
from kd_det.backbones.cifar_resnet import CifarResNet
from kd_det.backbones.cifar_wide_resnet import CifarWideResNet
from kd_det.backbones.mobilenet_v1 import MobileNetV1

__all__ = [
    "CifarResNet",
    "CifarWideResNet",
    "MobileNetV1",
    "cifar_mobilenet_v2",
    "cifar_shufflenet_v1",
    "cifar_shufflenet_v2",
]
