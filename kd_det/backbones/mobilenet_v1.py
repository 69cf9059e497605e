"""MobileNet V1."""

from __future__ import annotations

from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from kd_det.backbones.cifar_resnet import INIT
from kd_det.registry import MODELS

# Width and stride of each separable convolution, by stage.
STAGES = (
    ((64, 1), (128, 2), (128, 1)),
    ((256, 2), (256, 1)),
    ((512, 2), *((512, 1),) * 5),
    ((1024, 2), (1024, 1)),
)


class SeparableConv(nn.Module):
    """ReLU, then a depthwise and a pointwise convolution; the map before its ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.depthwise = nn.Sequential(
            nn.Conv2d(in_channels, in_channels, 3, stride, 1, groups=in_channels, bias=False),
            nn.BatchNorm2d(in_channels),
        )
        self.pointwise = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(F.relu(self.depthwise(F.relu(x))))


@MODELS.register_module()
class MobileNetV1(BaseModule):
    """MobileNet of width 1, four stages at strides 4, 8, 16 and 32.

    The outputs of ``stage1`` to ``stage4`` (128, 256, 512 and 1024 channels) are before their
    last ReLU, as ReviewKD compares them.

    Args:
        init_cfg: As in MMEngine; None for Kaiming's.

    Source: "MobileNets", arXiv 1704.04861, table 1.
    """

    def __init__(self, init_cfg: dict | list | None = None) -> None:
        super().__init__(list(INIT) if init_cfg is None else init_cfg)
        self.stem = nn.Sequential(
            nn.Conv2d(3, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32)
        )
        before = 32
        for number, widths in enumerate(STAGES, start=1):
            layers = []
            for width, stride in widths:
                layers.append(SeparableConv(before, width, stride))
                before = width
            self.add_module(f"stage{number}", nn.Sequential(*layers))

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """The last stage after its ReLU, ``[N, 1024, H / 32, W / 32]``."""
        x = self.stem(x)
        for number in range(len(STAGES)):
            x = getattr(self, f"stage{number + 1}")(x)
        return (F.relu(x),)
