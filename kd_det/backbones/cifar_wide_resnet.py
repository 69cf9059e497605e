"""Wide ResNets for images of 32 pixels."""

from __future__ import annotations

from collections import OrderedDict

from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from kd_det.backbones.cifar_resnet import INIT
from kd_det.errors import InvalidInputError
from kd_det.registry import MODELS


class WideBlock(nn.Module):
    """Norm and ReLU before each of two 3x3 convolutions, beside a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.convShortcut: nn.Module | None = None
        if in_channels != out_channels:
            self.convShortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        activated = F.relu(self.bn1(x))
        shortcut = x if self.convShortcut is None else self.convShortcut(activated)
        x = F.relu(self.bn2(self.conv1(activated)))
        return self.conv2(x) + shortcut


def stage(blocks: int, in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """Blocks of one width, under mdistiller's name for them."""
    layer = [WideBlock(in_channels, out_channels, stride)]
    layer += [WideBlock(out_channels, out_channels, 1) for _ in range(blocks - 1)]
    return nn.Sequential(OrderedDict(layer=nn.Sequential(*layer)))


@MODELS.register_module()
class CifarWideResNet(BaseModule):
    """WRN-d-k of depth ``6n + 4``, without dropout.

    Parameters have the names and shapes of mdistiller's. The maps that ReviewKD takes from a
    teacher, normalised and before ReLU, are the outputs of ``block2.layer.0.bn1``,
    ``block3.layer.0.bn1`` and ``bn1``; those that it takes from a student are the outputs of
    ``block1``, ``block2`` and ``block3``.

    Args:
        depth: 40 for WRN-40-k.
        widen_factor: k; the stages have 16k, 32k and 64k channels.
        init_cfg: As in MMEngine; None for the published initialisation.

    Raises:
        ValueError: If ``depth`` is not ``6n + 4`` or ``widen_factor`` not positive.

    Source: "Wide Residual Networks", arXiv 1605.07146.
    """

    def __init__(
        self, depth: int, widen_factor: int = 1, init_cfg: dict | list | None = None
    ) -> None:
        super().__init__(list(INIT) if init_cfg is None else init_cfg)
        if depth < 10 or (depth - 4) % 6 or widen_factor < 1:
            raise InvalidInputError(
                "CifarWideResNet needs a depth of 6n + 4 (10, 16, 22, ...) and widen_factor >= "
                f"1, got depth={depth} and widen_factor={widen_factor}"
            )
        blocks = (depth - 4) // 6
        widths = [width * widen_factor for width in (16, 32, 64)]
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.block1 = stage(blocks, 16, widths[0], stride=1)
        self.block2 = stage(blocks, widths[0], widths[1], stride=2)
        self.block3 = stage(blocks, widths[1], widths[2], stride=2)
        self.bn1 = nn.BatchNorm2d(widths[2])

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """The last stage, normalised, after ReLU: ``[N, 64 * widen_factor, H / 4, W / 4]``."""
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return (F.relu(self.bn1(x)),)
