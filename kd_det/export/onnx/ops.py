"""Select and suppress boxes for a whole batch, in operators that ONNX has; shared refusals.

MMDetection does it for one image after the other, with lists whose length depends on the scores.
Here every image has the same number of candidates, and those that are out have score 0; the
detections of an image are the same.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torchvision
from torch import Tensor

from kd_det.errors import UnsupportedTypeError


class Extent(NamedTuple):
    """Where the images of a batch lie in their input.

    Args:
        limits: `[B, 1, 4]`: width, height, width, height.
        inside: `[B, H, W]`, False where there is padding.
    """

    limits: Tensor
    inside: Tensor


def extent(sizes: Tensor, height: Any, width: Any) -> Extent:
    """That of images of heights and widths `[B, 2]` at the top left of the input."""
    limits = sizes.to(torch.float32).flip(1).repeat(1, 2)[:, None]
    rows = torch.arange(height, device=sizes.device) < sizes[:, :1]
    columns = torch.arange(width, device=sizes.device) < sizes[:, 1:]
    return Extent(limits, rows[:, :, None] & columns[:, None])


def require_methods(part: Any, kind: type, *methods: str) -> None:
    """Raise ``UnsupportedTypeError`` unless a part has these methods of ``kind``, not its own."""
    for name in methods:
        if getattr(type(part), name, None) is not getattr(kind, name):
            raise UnsupportedTypeError(
                f"{type(part).__name__} cannot be exported to ONNX: expected a part that predicts "
                f"as MMDetection's {kind.__name__}, found another {name}"
            )


def require_plain_scores(head: Any) -> None:
    """Raise ``UnsupportedTypeError`` unless scores are a sigmoid or softmax of the logits."""
    loss = getattr(head, "loss_cls", None)  # SSDHead has none, and MMDetection 3.3 asks it too
    if loss is None or getattr(loss, "custom_cls_channels", False):
        raise UnsupportedTypeError(
            f"the scores of {type(head).__name__} cannot be exported to ONNX: expected a loss_cls "
            f"with a sigmoid or softmax, found {'none' if loss is None else type(loss).__name__}"
        )


class _NonMaxSuppression(torch.autograd.Function):
    """Boxes `[B, M, 4]`, scores `[B, C, M]` -> rows `[K, 3]`: image, class and box kept."""

    @staticmethod
    def forward(ctx: Any, boxes: Tensor, scores: Tensor, iou: float, count: int) -> Tensor:
        rows = []
        for image, of_image in enumerate(scores):
            for label, each in enumerate(of_image):
                above = each.gt(0).nonzero()[:, 0]
                kept = above[torchvision.ops.nms(boxes[image, above], each[above], iou)[:count]]
                where = torch.tensor([image, label], device=kept.device).expand(len(kept), 2)
                rows.append(torch.cat([where, kept[:, None]], 1))
        return torch.cat(rows)

    @staticmethod
    def symbolic(g: Any, boxes: Any, scores: Any, iou: float, count: int) -> Any:
        constants = (
            g.op("Constant", value_t=torch.tensor([value]))
            for value in (int(count), float(iou), 0.0)
        )
        return g.op("NonMaxSuppression", boxes, scores, *constants)


class _RoiAlign(torch.autograd.Function):
    """A map `[B, C, H, W]`, RoIs `[N, 5]` -> `[N, C, *size]`, by the average of samples."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, rois: Tensor, size: Any, scale: float, ratio: int, aligned: bool
    ) -> Tensor:
        return torchvision.ops.roi_align(x, rois, size, scale, ratio, aligned)

    @staticmethod
    def symbolic(
        g: Any, x: Any, rois: Any, size: Any, scale: float, ratio: int, aligned: bool
    ) -> Any:
        def column(start: int, end: int) -> Any:
            ends = (g.op("Constant", value_t=torch.tensor([v])) for v in (start, end, 1))
            return g.op("Slice", rois, *ends)

        axis = g.op("Constant", value_t=torch.tensor([1]))
        image = g.op("Cast", g.op("Squeeze", column(0, 1), axis), to_i=7)  # int64
        return g.op(
            "RoiAlign",
            x,
            column(1, 5),
            image,
            mode_s="avg",
            coordinate_transformation_mode_s="half_pixel" if aligned else "output_half_pixel",
            output_height_i=size[0],
            output_width_i=size[1],
            sampling_ratio_i=max(ratio, 0),
            spatial_scale_f=scale,
        )


def roi_align(x: Tensor, rois: Tensor, layer: Any) -> Tensor:
    """Compute mmcv's ``RoIAlign`` layer, as ONNX's RoiAlign."""
    return _RoiAlign.apply(
        x, rois, layer.output_size, layer.spatial_scale, layer.sampling_ratio, layer.aligned
    )


def top(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The `k` largest of each row of `[B, N]` and their places; -1 where a row has fewer.

    The padding makes `k` valid for any `N`, which need not be known when the file is written.
    """
    padded = torch.cat([values, values.new_full((1, k), -1).expand(values.shape[0], -1)], 1)
    largest, index = padded.topk(k, 1)
    last = torch._shape_as_tensor(values)[1].to(index.device) - 1
    return largest, torch.minimum(index, last)


def take(x: Tensor, index: Tensor) -> Tensor:
    """Rows `[B, K, D]` of `[B, N, D]` by an index `[B, K]`."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[2]))


def suppress(boxes: Tensor, scores: Tensor, iou: float, count: int) -> Tensor:
    """Set to 0 the scores of boxes that overlap a better one of their class.

    Args:
        boxes: `[B, M, 4]`, or `[B, C, M, 4]` if each class has its own.
        scores: `[B, C, M]`.
        iou: Overlap from which the worse box is suppressed.
        count: The most that are kept of an image and class.
    """
    m, classes = scores.shape[2], scores.shape[1]
    if boxes.dim() == 4:
        row = _NonMaxSuppression.apply(
            boxes.reshape(-1, m, 4), scores.reshape(-1, 1, m), iou, count
        )
        place = row[:, 0] * m + row[:, 2]
    else:
        row = _NonMaxSuppression.apply(boxes, scores, iou, count)
        place = (row[:, 0] * classes + row[:, 1]) * m + row[:, 2]
    flat = scores.reshape(-1)
    return torch.zeros_like(flat).scatter(0, place, flat[place]).reshape(scores.shape)


def detections(
    boxes: Tensor, scores: Tensor, iou: float | None, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The `count` best detections of each image, after NMS by class.

    Args:
        boxes: `[B, M, 4]`, or `[B, C, M, 4]` if each class has its own.
        scores: `[B, C, M]`, 0 where a box is out.
        iou: NMS threshold; None for no NMS.
        count: Rows for each image.

    Returns:
        Boxes `[B, count, 4]`, scores `[B, count]`, labels `[B, count]`, best first; rows without
        a detection have score 0 and label -1.
    """
    if iou is not None:
        scores = suppress(boxes, scores, iou, count)
    m = scores.shape[2]
    best, index = top(scores.flatten(1), count)
    found = best > 0
    boxes = take(boxes.flatten(1, 2), index) if boxes.dim() == 4 else take(boxes, index % m)
    labels = torch.where(found, index // m, torch.full_like(index, -1))
    return boxes * found[..., None], best * found, labels


def clip(boxes: Tensor, limits: Tensor) -> Tensor:
    """Move corners of `[B, M, 4]` into the images."""
    return torch.minimum(boxes.clamp(min=0), limits)


def decode(coder: Any, priors: Tensor, predicted: Tensor, limits: Tensor) -> Tensor:
    """Boxes `[B, M, 4]` of priors `[B, M, D]` and predictions `[B, M, E]`."""
    flat = coder.decode(priors.flatten(0, 1), predicted.flatten(0, 1))
    boxes = flat.reshape(priors.shape[0], -1, 4)
    return clip(boxes, limits) if getattr(coder, "clip_border", False) else boxes


def without_small(scores: Tensor, boxes: Tensor, least: float) -> Tensor:
    """Set to 0 the scores `[B, M]` of boxes whose sides are not above ``least``; off below 0."""
    if least < 0:
        return scores
    sides = boxes[..., 2:] - boxes[..., :2]
    return scores * (sides > least).all(-1)
