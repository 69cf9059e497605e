"""The objects that a teacher's own queries found, as its assigner matches them in training."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.structures import SampleList
from torch import Tensor

from kd_det.algorithms.query.decoder import Outputs
from kd_det.errors import InvalidInputError


@torch.no_grad()
def match(teacher: Any, outputs: Outputs, data_samples: SampleList) -> Tensor:
    """Class of the object that each query is matched to, ``[N, Q]``; background without one.

    Args:
        teacher: A query detector.
        outputs: What it made of its own queries.
        data_samples: The images' objects.

    Raises:
        ValueError: If the detector has no ``train_cfg``, which says how.
    """
    head = teacher.bbox_head
    if not hasattr(head, "assigner"):
        raise InvalidInputError(
            "the teacher has no train_cfg, so nothing says which queries its assigner matches to "
            "objects; give it the one that it was trained with"
        )
    labels, *_ = head.get_targets(
        list(outputs.logits.float()),
        list(outputs.boxes.float()),
        [sample.gt_instances for sample in data_samples],
        [sample.metainfo for sample in data_samples],
    )
    return torch.stack(labels)


def rules(detector: Any) -> list[Any]:
    """List everything that decides which queries a detector matches to objects."""
    return [type(detector.bbox_head).__name__, detector.train_cfg, detector.num_queries]
