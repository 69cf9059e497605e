"""Fusion path of ReviewKD: deep student levels help to explain the fine ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from kd_det.connectors._batch_norm import batch_norm
from kd_det.errors import InvalidInputError

if TYPE_CHECKING:
    Size = int | tuple[int, int]


class AttentionFusion(nn.Module):
    """ABF, attention based fusion of one student level with the map carried from below.

    ``x = BN(conv1x1(student))``; with a carried map ``y``, two sigmoid attention maps ``a``
    over both give ``x * a0 + y * a1``; ``BN(conv3x3(x))`` is the output, ``x`` is carried on.

    Args:
        in_channels: Channels of the student's map.
        out_channels: Channels of the output (the teacher's map).
        mid_channels: Channels of the carried map.
        fuse: Whether a map is carried in (all levels but the deepest).
        residual: Whether the output is added to the student's map, from zero on.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        mid_channels: int,
        fuse: bool,
        residual: bool = False,
    ) -> None:
        super().__init__()
        norm = nn.BatchNorm2d(out_channels)
        reduce = nn.Conv2d(in_channels, mid_channels, kernel_size=1, bias=False)
        expand = nn.Conv2d(mid_channels, out_channels, kernel_size=3, padding=1, bias=False)
        for conv in (reduce, expand):
            nn.init.kaiming_uniform_(conv.weight, a=1)
        self.conv1 = nn.Sequential(reduce, nn.BatchNorm2d(mid_channels))
        self.conv2 = nn.Sequential(expand, norm)
        self.skip: nn.Module | None = None
        if residual:
            nn.init.zeros_(norm.weight)
            same = in_channels == out_channels
            self.skip = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)
        self.att_conv = (
            nn.Sequential(nn.Conv2d(2 * mid_channels, 2, kernel_size=1), nn.Sigmoid())
            if fuse
            else None
        )

    def forward(
        self, x: Tensor, carried: Tensor | None = None, out_size: Size | None = None
    ) -> tuple[Tensor, Tensor]:
        """Output ``[N, out_channels, *]`` and carried map ``[N, mid_channels, *]``.

        Args:
            x: Student map ``[N, in_channels, H, W]``.
            carried: Map of the deeper level, already of size ``(H, W)``.
            out_size: Size of both results; None keeps that of ``x``.
        """
        kept = None if self.skip is None else self.skip(x)
        x = _conv_norm(self.conv1, x)
        if self.att_conv is not None:
            assert carried is not None
            attention = _attention(self.att_conv, x, carried)
            x = torch.addcmul(carried * attention[:, 1:], x, attention[:, :1])
        if out_size is not None:
            x = _resize(x, _height_width(out_size))
        output = _conv_norm(self.conv2, x)
        if kept is not None:
            output = output + _resize(kept, list(output.shape[2:]))
        return output, x


def _attention(layers: nn.Sequential, x: Tensor, carried: Tensor) -> Tensor:
    """Attention maps ``[N, 2, H, W]``, without a map of both ``x`` and ``carried``."""
    conv, sigmoid = layers
    assert isinstance(conv, nn.Conv2d)
    for_x, for_carried = conv.weight.chunk(2, dim=1)
    return sigmoid(F.conv2d(x, for_x, conv.bias) + F.conv2d(carried, for_carried))


def _conv_norm(layers: nn.Sequential, x: Tensor) -> Tensor:
    """Convolution and normalisation."""
    conv, norm = layers
    return batch_norm(norm, conv(x))


def _height_width(size: Size) -> list[int]:
    return [size, size] if isinstance(size, int) else list(size)


def _resize(x: Tensor, size: list[int]) -> Tensor:
    return x if list(x.shape[2:]) == size else F.interpolate(x, size, mode="nearest")


@contextmanager
def _statistics_kept(abf: nn.Module) -> Iterator[None]:
    """Normalise by a batch's own statistics without counting them a second time."""
    # By attribute: sync_bn puts other classes in place of nn.BatchNorm2d.
    norms: list[Any] = [module for module in abf.modules() if hasattr(module, "running_mean")]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, norm.num_batches_tracked.clone()
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, kept):
            norm.momentum, norm.num_batches_tracked = momentum, batches


class ReviewFusion(nn.Module):
    """Student pyramid to fused pyramid, each level in the teacher's channels.

    State-dict keys are those of the official module, ``abfs.0`` being the deepest level. A pooled
    feature of a single image is normalised with running statistics, which stay as they are.

    Args:
        in_channels: Channels of each student level, fine to deep.
        out_channels: Channels of each output, fine to deep.
        mid_channels: Channels of the carried map.
        sizes: Ignored; the official module has it. The size of a carried map is always that of
            the student's map.
        out_sizes: Side of each output, int or ``(h, w)``, fine to deep. None takes the student's
            own sizes, which suits images of any size.
        recompute: Whether to compute a level's maps a second time in the backward pass instead
            of keeping them (activation checkpointing): less memory, the same result, and the
            forward pass of this module twice.
        residual: Whether each output is the student's own map (through a 1x1 convolution where the
            channels differ) plus what the fusion makes, which starts at zero.

    Raises:
        ValueError: If the lists are not of one length.

    Source: "Distilling Knowledge via Knowledge Review", arXiv 2104.09044, figure 3.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: Sequence[int],
        mid_channels: int,
        sizes: Sequence[Size] | None = None,
        out_sizes: Sequence[Size] | None = None,
        recompute: bool = False,
        residual: bool = False,
    ) -> None:
        super().__init__()
        levels = len(in_channels)
        given = {"out_channels": out_channels, "out_sizes": out_sizes}
        for name, values in given.items():
            if values is not None and len(values) != levels:
                raise InvalidInputError(
                    f"ReviewFusion needs one entry per level in every list, got in_channels of "
                    f"{levels} levels and {name} of {len(values)}"
                )
        if levels == 0:
            raise InvalidInputError("ReviewFusion needs at least one level, got in_channels=[]")
        self.in_channels = tuple(in_channels)
        self.out_sizes = out_sizes
        self.recompute = recompute
        deepest = levels - 1
        self.abfs = nn.ModuleList(
            AttentionFusion(in_channels[i], out_channels[i], mid_channels, i < deepest, residual)
            for i in reversed(range(levels))
        )

    def forward(self, s_feats: Sequence[Tensor]) -> list[Tensor]:
        """Fused maps, fine to deep, ``[N, out_channels[i], *, *]``.

        Args:
            s_feats: Student maps, fine to deep, ``[N, in_channels[i], H, W]``; a pooled
                feature ``[N, C]`` counts as ``[N, C, 1, 1]``.

        Raises:
            ValueError: If the number of levels or the channels do not fit.
        """
        levels = len(self.in_channels)
        if len(s_feats) != levels:
            raise InvalidInputError(
                f"ReviewFusion was built for {levels} student levels, got {len(s_feats)}"
            )
        outputs: list[Tensor] = []
        carried: Tensor | None = None
        for abf, level in zip(self.abfs, reversed(range(levels))):
            x = s_feats[level]
            x = x[..., None, None] if x.dim() == 2 else x
            self._check_level(level, x)
            if carried is not None:
                carried = _resize(carried, list(x.shape[2:]))
            out_size = None if self.out_sizes is None else self.out_sizes[level]
            output, carried = self._fuse(abf, x, carried, out_size)
            outputs.insert(0, output)
        return outputs

    def _fuse(
        self, abf: nn.Module, x: Tensor, carried: Tensor | None, out_size: Size | None
    ) -> tuple[Tensor, Tensor]:
        if not self.recompute:
            return abf(x, carried, out_size)
        calls = 0

        def run(*args: Any) -> tuple[Tensor, Tensor]:
            nonlocal calls
            calls += 1
            with nullcontext() if calls == 1 else _statistics_kept(abf):
                return abf(*args)

        return checkpoint(run, x, carried, out_size, use_reentrant=False)

    def _check_level(self, level: int, x: Tensor) -> None:
        expected = self.in_channels[level]
        if x.dim() != 4 or x.shape[1] != expected:
            raise InvalidInputError(
                f"ReviewFusion level {level} expected a student map [N, {expected}, H, W], got "
                f"{list(x.shape)}"
            )
