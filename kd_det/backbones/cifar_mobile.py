"""mmpretrain's mobile networks, with less stride for images of 32 pixels.

mmpretrain is imported when one is built: the registry imports this module with every detector,
and loading all of mmpretrain takes seconds.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from kd_det.registry import MODELS


@MODELS.register_module(name="CifarMobileNetV2")
def cifar_mobilenet_v2(widen_factor: float = 0.5, **kwargs: Any) -> nn.Module:
    """mmpretrain's ``MobileNetV2`` at stride 16 instead of 32, of half the width by default.

    Outputs of ``layer2``, ``layer3``, ``layer5`` and ``layer7``: 16, 8, 4 and 2 pixels of 32.
    mdistiller's ``mobile_half`` also expands its first block, and has 12 channels where this one
    has 16 (``layer2``): mmpretrain makes widths divisible by 8.
    """
    from mmpretrain.models.backbones import MobileNetV2

    class CifarMobileNetV2(MobileNetV2):
        # Expansion, channels, blocks, stride; the second layer has stride 2 for ImageNet.
        arch_settings: ClassVar[list] = [
            [ratio, width, blocks, 1 if index == 1 else stride]
            for index, (ratio, width, blocks, stride) in enumerate(MobileNetV2.arch_settings)
        ]

    return CifarMobileNetV2(widen_factor, **kwargs)


@MODELS.register_module(name="CifarShuffleNetV1")
def cifar_shufflenet_v1(groups: int = 3, **kwargs: Any) -> nn.Module:
    """mmpretrain's ``ShuffleNetV1`` with a stem of 1x1 convolution instead of stride 4.

    Outputs of ``layers.0`` to ``layers.2``: 240, 480 and 960 channels of 16, 8 and 4 pixels.
    """
    from mmpretrain.models.backbones import ShuffleNetV1

    return _with_small_stem(ShuffleNetV1(groups=groups, **kwargs))


@MODELS.register_module(name="CifarShuffleNetV2")
def cifar_shufflenet_v2(**kwargs: Any) -> nn.Module:
    """mmpretrain's ``ShuffleNetV2`` with a stem of 1x1 convolution instead of stride 4.

    Outputs of ``layers.0`` to ``layers.2``: 116, 232 and 464 channels of 16, 8 and 4 pixels; of
    ``layers.3``: 1024 channels of 4 pixels.
    """
    from mmpretrain.models.backbones import ShuffleNetV2

    return _with_small_stem(ShuffleNetV2(**kwargs))


def _with_small_stem(model: Any) -> nn.Module:
    from mmcv.cnn import ConvModule

    norm, activation = model.norm_cfg, model.act_cfg
    stem = model.conv1.out_channels
    model.conv1 = ConvModule(3, stem, kernel_size=1, norm_cfg=norm, act_cfg=activation)
    model.maxpool = nn.Identity()
    return model
