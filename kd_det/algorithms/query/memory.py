"""Record what an encoder makes of a pyramid, as a pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmrazor.models.task_modules.recorder import ModuleOutputsRecorder
from torch import Tensor, nn

from kd_det.algorithms.wiring import WiringError, require_module
from kd_det.registry import TASK_UTILS


@TASK_UTILS.register_module()
class MemoryRecorder(ModuleOutputsRecorder):
    """Memory of an encoder: ``dict(type='kd_det.Memory')`` in a config.

    The encoder of a DETR takes the maps of its pyramid as one sequence ``[N, L, C]`` and returns
    another, the memory that its decoder reads. A record has it as maps ``[N, C, H, W]`` again, so
    that losses and connectors on pyramids read them. DETR's and its like encode the last map alone,
    and records have one level; Deformable DETR's and DINO's have all of the pyramid.

    Args:
        source: Name of the encoder.
        pyramid: Name of the module whose outputs it encodes.

    Raises:
        kd_det.algorithms.WiringError: If there are no such modules, or the memory has not the
            positions of the pyramid.
    """

    def __init__(self, source: str = "encoder", pyramid: str = "neck") -> None:
        super().__init__(source)
        self.pyramid = pyramid
        self._sizes: list[torch.Size] = []

    def prepare_from_model(self, model: nn.Module | None = None) -> None:
        """Record the encoder's calls, and keep the sizes of the pyramid's maps."""
        assert model is not None
        require_module(model, self.source, "detector", "kd_det.Memory has source")
        require_module(model, self.pyramid, "detector", "kd_det.Memory has pyramid")
        model.get_submodule(self.pyramid).register_forward_hook(self._keep_sizes)
        super().prepare_from_model(model)

    def _keep_sizes(self, module: nn.Module, inputs: Any, maps: Sequence[Tensor] | Tensor) -> None:
        if self.recording:
            self._sizes = [x.shape[-2:] for x in ([maps] if isinstance(maps, Tensor) else maps)]

    def forward_hook(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        """Divide the memory of one call."""
        if self.recording:
            self.data_buffer.append(self._divide(outputs))

    def _divide(self, memory: Tensor) -> list[Tensor]:
        sizes = [size for size in self._sizes if size.numel()]
        encoded = sizes if sum(map(torch.Size.numel, sizes)) == memory.shape[1] else sizes[-1:]
        lengths = [size.numel() for size in encoded]
        if sum(lengths) != memory.shape[1]:
            raise WiringError(
                f"kd_det.Memory: '{self.source}' returned {list(memory.shape)}, expected "
                f"[N, L, C] of the positions of '{self.pyramid}', whose maps have "
                f"{[list(size) for size in self._sizes]}"
            )
        levels = memory.transpose(1, 2).split(lengths, dim=2)
        return [x.unflatten(2, tuple(size)) for x, size in zip(levels, encoded)]
