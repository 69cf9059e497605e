"""Decode the boxes that a dense head predicts, in pixels of its input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.dense_heads import GFLHead, PAAHead, VFNetHead, YOLOXHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.structures.bbox import get_box_tensor
from mmrazor.models.task_modules.recorder import ModuleOutputsRecorder
from torch import Tensor, nn

from kd_det.algorithms.wiring import require_module
from kd_det.errors import UnsupportedTypeError
from kd_det.registry import TASK_UTILS

# Logarithm of the largest size of a box in strides: YOLOX's overflow before it is trained.
LARGEST = 14.0


@TASK_UTILS.register_module()
class BoxesRecorder(ModuleOutputsRecorder):
    """Boxes of a dense head, ``dict(type='kd_det.Boxes', source='bbox_head')`` in a config.

    A record is a list with the maps ``[N, A * 4, H, W]`` of each level: the corners of the box of
    each anchor, as the head decodes them for its predictions. Heads that predict distances, deltas
    or distributions are comparable by them.

    Args:
        source: Name of the head.
        levels: Indices of the levels to keep, where the other side has others; None for all.

    Raises:
        kd_det.algorithms.WiringError: If there is no such head.
        TypeError: If the head's boxes cannot be decoded map by map.
    """

    def __init__(self, source: str, levels: Sequence[int] | None = None) -> None:
        super().__init__(source)
        self.levels = levels

    def prepare_from_model(self, model: nn.Module | None = None) -> None:
        """Record the head's calls; refuse a head that is not supported."""
        assert model is not None
        require_module(model, self.source, "detector", "kd_det.Boxes has source")
        super().prepare_from_model(model)
        _require_supported(model.get_submodule(self.source))

    def forward_hook(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        """Decode the boxes of one call."""
        if self.recording:
            boxes = decode_boxes(module, outputs[1])
            levels = range(len(boxes)) if self.levels is None else self.levels
            self.data_buffer.append([boxes[level] for level in levels])


def decode_boxes(head: Any, preds: Sequence[Tensor]) -> list[Tensor]:
    """Decode a head's predictions ``[N, A * D, H, W]`` of each level to ``[N, A * 4, H, W]``.

    Differentiable, in float32. Not clipped to the image.

    Args:
        head: A dense head of mmdet.
        preds: Its second output, of a call in the mode in which the head is.
    """
    with torch.autocast(preds[0].device.type, enabled=False):
        return [
            _decode_level(head, level, priors, x.float() if x.dtype != torch.float64 else x)
            for level, (x, priors) in enumerate(zip(preds, _priors(head, preds)))
        ]


def _priors(head: Any, preds: Sequence[Tensor]) -> list[Tensor]:
    more: dict[str, Any] = dict(with_stride=True) if isinstance(head, YOLOXHead) else {}
    return head.prior_generator.grid_priors(
        [x.shape[-2:] for x in preds], dtype=torch.float32, device=preds[0].device, **more
    )


def _decode_level(head: Any, level: int, priors: Tensor, x: Tensor) -> Tensor:
    images, channels, height, width = x.shape
    # In the order of the priors: row, column, anchor.
    size = height * width * channels // len(priors)
    rows = x.permute(0, 2, 3, 1).reshape(images, len(priors), size)
    priors = priors.to(x.dtype)
    if isinstance(head, YOLOXHead):
        centers, sizes = rows.split(2, dim=-1)
        rows = torch.cat([centers, sizes.clamp(max=LARGEST)], dim=-1)
        boxes = head._bbox_decode(priors, rows)
    else:
        stride = head.prior_generator.strides[level][0]
        if isinstance(head, GFLHead):
            priors = head.anchor_center(priors)
            rows = head.integral(rows).reshape(images, len(priors), 4) * stride
        elif head.training and getattr(head, "norm_on_bbox", False):
            rows = rows * stride  # as FCOS does in eval mode
        boxes = head.bbox_coder.decode(priors.repeat(images, 1), rows.flatten(0, 1))
    anchors = len(priors) // (height * width)
    found = get_box_tensor(boxes).reshape(images, height, width, anchors * 4)
    return found.permute(0, 3, 1, 2)


def _require_supported(head: nn.Module) -> None:
    """Raise ``TypeError`` unless a head decodes its second output by its box coder alone."""
    if isinstance(head, BaseDenseHead) and not isinstance(head, VFNetHead):
        whole, single = type(head).predict_by_feat, type(head)._predict_by_feat_single
        if isinstance(head, YOLOXHead) or (
            whole in (BaseDenseHead.predict_by_feat, PAAHead.predict_by_feat)
            and single
            in (
                BaseDenseHead._predict_by_feat_single,
                GFLHead._predict_by_feat_single,
                PAAHead._predict_by_feat_single,
            )
        ):
            return
    raise UnsupportedTypeError(
        f"kd_det.Boxes does not know how a {type(head).__name__} decodes its boxes; it supports "
        "the dense heads of mmdet that predict one box for each anchor or point by a box coder "
        "(RetinaNet, FCOS, ATSS, PAA, GFL, RTMDet, YOLOX, SSD and others)"
    )
