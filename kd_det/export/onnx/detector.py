"""A detector as one module from images to boxes, scores and labels, for a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmdet.models.detectors import SingleStageDetector
from mmdet.models.detectors.base_detr import DetectionTransformer
from torch import Tensor, nn

from kd_det.errors import UnsupportedTypeError
from kd_det.export.onnx import ops
from kd_det.export.onnx.dense import check_head, dense_detections
from kd_det.export.onnx.query import check_queries, query_detections
from kd_det.export.onnx.two_stage import check_heads, two_stage_detections


class OnnxDetector(nn.Module):
    """The module that is exported: network, decoding and NMS.

    Args:
        model: A detector of MMDetection, single-stage, two-stage or DETR, in eval mode.
        preprocess: Whether the input is RGB images, uint8 `[B, H, W, 3]`, which are normalised
            inside; otherwise it is normalised float32 `[B, 3, H, W]`.
        pad: Colour in RGB that is put around images which are normalised inside: whole numbers
            are too coarse for the mean colour, with which most networks pad.

    Raises:
        UnsupportedTypeError: If its heads predict in a way that is not known here.
    """

    def __init__(
        self, model: Any, preprocess: bool = False, pad: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.predict = _choose_decoder(model)
        self.model = model
        self.preprocess, self.pad = preprocess, pad
        self.mean, self.std, self.swaps = normalisation(model.data_preprocessor)

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes `[B, K, 4]` in pixels of the input, scores `[B, K]`, labels `[B, K]`.

        ``sizes`` are heights and widths `[B, 2]` of the images inside their padding. The best come
        first; rows without a detection have score 0 and label -1.
        """
        extent = self.extent(images, sizes)
        features = self.model.extract_feat(self.normalised(images, extent))
        boxes, scores, labels = self.predict(self.model, features, extent)
        # An input that is not read, as by YOLOX, which does not clip, would not be in the file.
        return boxes + 0 * extent.limits, scores, labels

    def extent(self, images: Tensor, sizes: Tensor) -> ops.Extent:
        """Where images of heights and widths `[B, 2]` lie in the input."""
        height, width = images.shape[1:3] if self.preprocess else images.shape[2:]
        return ops.extent(sizes, height, width)

    def normalised(self, images: Tensor, extent: ops.Extent) -> Tensor:
        """The network's input `[B, 3, H, W]`."""
        if not self.preprocess:
            return images
        x = images.to(torch.float32)
        if self.pad is not None:
            x = torch.where(extent.inside[..., None], x, x.new_tensor(self.pad))
        x = (x if self.swaps else x.flip(-1)).permute(0, 3, 1, 2)
        mean, std = (x.new_tensor(each).reshape(-1, 1, 1) for each in (self.mean, self.std))
        return (x - mean) / std


def _choose_decoder(model: Any) -> Callable[[Any, Any, ops.Extent], Any]:
    """Choose the function that decodes what the heads of a detector predict."""
    if isinstance(model, DetectionTransformer):
        check_queries(model)
        return query_detections
    if hasattr(model, "roi_head") and hasattr(model, "rpn_head"):
        check_heads(model)
        return two_stage_detections
    if isinstance(model, SingleStageDetector):
        check_head(model.bbox_head)
        return dense_detections
    raise UnsupportedTypeError(
        f"{type(model).__name__} cannot be exported to ONNX: expected a single-stage, two-stage or "
        "transformer detector of MMDetection"
    )


def normalisation(preprocessor: Any) -> tuple[list[float], list[float], bool]:
    """Mean and std in the network's order of channels, and whether that order is RGB.

    Images come in BGR, as OpenCV reads them.
    """
    rgb = bool(preprocessor._channel_conversion)
    if not preprocessor._enable_normalize:
        return [0.0] * 3, [1.0] * 3, rgb
    return preprocessor.mean.flatten().tolist(), preprocessor.std.flatten().tolist(), rgb
