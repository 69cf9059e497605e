"""ResNets for images of 32 pixels: three stages of basic blocks."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from kd_det.errors import InvalidInputError
from kd_det.registry import MODELS

# As in mdistiller: Kaiming's, by the number of outputs.
INIT = (
    dict(type="Kaiming", layer="Conv2d"),
    dict(type="Constant", layer="BatchNorm2d", val=1),
)


class BasicBlock(nn.Module):
    """ReLU, then two 3x3 convolutions beside a shortcut; the sum, before its ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        return self.bn2(self.conv2(x)) + shortcut


@MODELS.register_module()
class CifarResNet(BaseModule):
    """ResNet of depth ``6n + 2``: a 3x3 stem and three stages of n basic blocks.

    Parameters have the names, shapes and initialisation of mdistiller's. The ReLU that ends a
    block is taken at the beginning of what comes next, so that the outputs of ``layer1``,
    ``layer2`` and ``layer3`` are the stages before their last ReLU, which ReviewKD compares.

    Args:
        depth: 20 and 56 for ResNet-20 and 56, 8 and 32 for ResNet-8x4 and 32x4.
        channels: Of the stem and of the three stages: ``(16, 16, 32, 64)``, or
            ``(32, 64, 128, 256)`` for the ``x4`` models.
        out_indices: Stages whose output, after its ReLU, :meth:`forward` returns.
        init_cfg: As in MMEngine; None for the published initialisation.

    Raises:
        ValueError: If ``depth`` is not ``6n + 2`` or there are not four ``channels``.

    Source: "Deep Residual Learning for Image Recognition", arXiv 1512.03385, section 4.2.
    """

    def __init__(
        self,
        depth: int,
        channels: Sequence[int] = (16, 16, 32, 64),
        out_indices: Sequence[int] = (2,),
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(list(INIT) if init_cfg is None else init_cfg)
        if depth < 8 or (depth - 2) % 6 or len(channels) != 4:
            raise InvalidInputError(
                "CifarResNet needs a depth of 6n + 2 (8, 14, 20, ...) and channels of the stem "
                f"and three stages, got depth={depth} and channels={channels}"
            )
        self.out_indices = tuple(out_indices)
        stem, *stages = channels
        self.conv1 = nn.Conv2d(3, stem, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        before = stem
        for number, width in enumerate(stages, start=1):
            blocks = [BasicBlock(before, width, stride=1 if number == 1 else 2)]
            blocks += [BasicBlock(width, width, stride=1) for _ in range((depth - 2) // 6 - 1)]
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
            before = width

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Stages of ``out_indices``, ``[N, channels[i + 1], H / 2**i, W / 2**i]``, after ReLU."""
        x = self.bn1(self.conv1(x))
        outputs = []
        for index in range(3):
            x = getattr(self, f"layer{index + 1}")(x)
            if index in self.out_indices:
                outputs.append(F.relu(x))
        return tuple(outputs)
