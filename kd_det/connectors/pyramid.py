"""Maps a student's pyramid to the channels of the teacher's."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from kd_det.errors import InvalidInputError


class PyramidConnector(nn.Module):
    """A 1x1 convolution for each level: ``[N, in, H, W] -> [N, out, H, W]``.

    For losses that compare pyramids channel by channel, where the channels differ in number. Made
    for one level, it also takes a map alone and gives one back.

    Args:
        in_channels: Channels of each student level, fine to deep.
        out_channels: Channels of each teacher level.

    Raises:
        ValueError: If the lists are empty or not of one length.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: Sequence[int]) -> None:
        super().__init__()
        if len(in_channels) != len(out_channels) or not in_channels:
            raise InvalidInputError(
                "PyramidConnector needs in_channels and out_channels of one length, at least 1, "
                f"got {list(in_channels)} and {list(out_channels)}"
            )
        self.convs = nn.ModuleList(map(_conv, in_channels, out_channels))

    def forward(self, s_feats: Sequence[Tensor] | Tensor) -> list[Tensor] | Tensor:
        """Maps ``[N, out_channels[i], H, W]`` of student maps ``[N, in_channels[i], H, W]``.

        Raises:
            ValueError: If the number of levels or the channels do not fit.
        """
        maps = [s_feats] if isinstance(s_feats, Tensor) else list(s_feats)
        found = [x.shape[1] for x in maps]
        expected = [conv.in_channels for conv in self.convs]
        if found != expected:
            raise InvalidInputError(
                f"PyramidConnector expected student maps of {expected} channels, got {found}"
            )
        results = [conv(x) for conv, x in zip(self.convs, maps)]
        return results[0] if isinstance(s_feats, Tensor) else results


def _conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, out_channels, kernel_size=1)
    nn.init.kaiming_uniform_(conv.weight, a=1)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv
