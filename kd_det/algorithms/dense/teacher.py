"""The positives of a teacher that is a dense detector, for its class centers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmdet.models.dense_heads import AnchorHead, YOLOXHead
from mmdet.models.detectors import SingleStageDetector
from mmdet.structures import SampleList
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from kd_det.algorithms.dense.positives import PositivesRecorder
from kd_det.errors import InvalidInputError

HEAD = "bbox_head"
# Types of a head's options, which may be nested.
PLAIN = (bool, int, float, str, list, tuple, dict, type(None))


def is_dense(detector: nn.Module) -> bool:
    """Tell whether a detector has a dense head that assigns objects to positions."""
    head = getattr(detector, HEAD, None)
    return isinstance(detector, SingleStageDetector) and hasattr(head, "loss_by_feat")


def teacher_positives(teacher: Any, inputs: Tensor, data_samples: SampleList) -> list[Tensor]:
    """Run a detector on images, and its assigner on their objects; returns its positives.

    Args:
        teacher: A dense detector, in eval mode, under the recorders of its embeddings.
        inputs: Its input ``[N, 3, H, W]``.
        data_samples: The images' objects.

    Returns:
        See :mod:`kd_det.losses.positives`.

    Raises:
        ValueError: If the detector has no ``train_cfg``, which says how.
        TypeError: If nothing says which positions its head makes positive.
    """
    head = teacher.bbox_head
    if not getattr(head, "train_cfg", None) and isinstance(head, (AnchorHead, YOLOXHead)):
        raise InvalidInputError(
            "the teacher has no train_cfg, so nothing says which positions its assigner makes "
            "positive; give it the one that it was trained with"
        )
    recorder = PositivesRecorder(HEAD)
    recorder.initialize(teacher)
    with _losses_in_float32(head, inputs.device.type), recorder, _outputs_of_training(head):
        head.loss(teacher.extract_feat(inputs), data_samples)
    return recorder.get_record_data(data_idx=0)


@contextmanager
def _outputs_of_training(head: nn.Module) -> Iterator[None]:
    """Let a head put out what its losses take; its norms and dropout stay in eval mode."""
    before = head.training
    head.training = True
    try:
        yield
    finally:
        head.training = before


@contextmanager
def _losses_in_float32(head: Any, device_type: str) -> Iterator[None]:
    """Let a head assign and compute its losses in float32, where its maps are of 16 bits."""
    loss_by_feat = head.loss_by_feat

    def call(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = tree_map_only(Tensor, _at_least_float32, (args, kwargs))
        with torch.autocast(device_type, enabled=False):  # some losses refuse it
            return loss_by_feat(*args, **kwargs)

    head.loss_by_feat = call
    try:
        yield
    finally:
        del head.loss_by_feat


def _at_least_float32(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def rules(detector: Any) -> list[Any]:
    """List everything that decides how a dense head assigns objects to positions."""
    head = detector.bbox_head
    options = {
        name: value
        for name, value in vars(head).items()
        if isinstance(value, PLAIN) and not name.startswith("_") and name != "training"
    }
    parts = [getattr(head, name, None) for name in ("prior_generator", "assigner")]
    return [type(head).__name__, detector.train_cfg, options, *parts]
