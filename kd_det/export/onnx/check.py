"""Compare the detections of an exported file with those of its detector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmdet.structures import DetDataSample

from kd_det.export.onnx.detector import OnnxDetector
from kd_det.export.onnx.runtime import whole

# Largest differences of scores, and of boxes in pixels.
SCORE_TOLERANCE, BOX_TOLERANCE = 1e-3, 0.1
# Share of detections that may have no counterpart. NMS and the choice of the best compare numbers
# that are rounded in another order, so that one box may be kept instead of its near twin.
UNMATCHED_SHARE = 0.01
Run = Callable[..., dict[str, np.ndarray]]


@dataclass
class Comparison:
    """Detections of a file beside PyTorch's.

    Args:
        detections: PyTorch's, of all images.
        unmatched: Of both, those without a counterpart of the same label within the tolerances.
        score_difference: Largest of matched ones.
        box_difference: Largest of matched ones, in pixels.
    """

    detections: int = 0
    unmatched: int = 0
    score_difference: float = 0.0
    box_difference: float = 0.0

    @property
    def fits(self) -> bool:
        """Whether file and PyTorch have the same detections."""
        return self.unmatched <= UNMATCHED_SHARE * 2 * max(self.detections, 1)

    def __str__(self) -> str:
        matched = f"{self.unmatched} without a counterpart" if self.unmatched else "all matched"
        return (
            f"{self.detections} detections, {matched}, scores within "
            f"{self.score_difference:.1e} and boxes within {self.box_difference:.1e} pixels"
        )


def compare(
    detector: OnnxDetector, run: Run, images: np.ndarray, sizes: np.ndarray | None = None
) -> Comparison:
    """Compare on a batch of images.

    Args:
        detector: What was exported; MMDetection's own ``predict`` of its model is the reference.
        run: A session of the file.
        images: Input of the file.
        sizes: Heights and widths `[B, 2]` without padding; the whole input's if not given.
    """
    if sizes is None:
        sizes = whole(images)
    device = next(detector.parameters()).device
    inputs = torch.from_numpy(images).to(device)
    with torch.no_grad():
        extent = detector.extent(inputs, torch.from_numpy(sizes).to(device))
        inputs = detector.normalised(inputs, extent)
        size = tuple(inputs.shape[-2:])
        info = dict(pad_shape=size, batch_input_shape=size, scale_factor=(1.0, 1.0))
        samples = [
            DetDataSample(metainfo=dict(info, img_shape=tuple(own), ori_shape=tuple(own)))
            for own in sizes.tolist()
        ]
        predicted = detector.model.predict(inputs, samples, rescale=False)
    found = run(images, sizes)
    result = Comparison()
    for index, sample in enumerate(predicted):
        theirs = sample.pred_instances.cpu()
        keep = found["scores"][index] > 0
        _match(
            result,
            (theirs.bboxes.numpy(), theirs.scores.numpy(), theirs.labels.numpy()),
            tuple(found[name][index][keep] for name in ("boxes", "scores", "labels")),
        )
    return result


def _match(result: Comparison, theirs: tuple[Any, ...], ours: tuple[Any, ...]) -> None:
    """Match each detection with the closest free one, best scores first."""
    result.detections += len(theirs[0])
    free = np.ones(len(ours[0]), bool)
    for box, score, label in zip(*theirs):
        boxes = np.abs(ours[0] - box).max(1, initial=0)
        scores = np.abs(ours[1] - score)
        fits = free & (ours[2] == label) & (boxes <= BOX_TOLERANCE) & (scores <= SCORE_TOLERANCE)
        if not fits.any():
            result.unmatched += 1
            continue
        place = int(np.argmin(np.where(fits, boxes + scores, np.inf)))
        free[place] = False
        result.score_difference = max(result.score_difference, float(scores[place]))
        result.box_difference = max(result.box_difference, float(boxes[place]))
    result.unmatched += int(free.sum())
