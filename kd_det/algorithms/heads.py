"""The RoI heads of mmdet that are supported, and the names of their parts."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.detectors import TwoStageDetector
from mmdet.models.roi_heads import (
    CascadeRoIHead,
    MultiInstanceRoIHead,
    SparseRoIHead,
    StandardRoIHead,
    TridentRoIHead,
)
from torch import Tensor, nn

from kd_det.algorithms.wiring import WiringError
from kd_det.errors import InvalidInputError, UnsupportedTypeError

TEACHER_STAGES = ("same", "last", "mean")

# Subclasses of the supported heads that take the same arguments or nearly so, and cannot work.
KNOWN_NOT_TO_WORK = {
    SparseRoIHead: "it scores learned queries, which RoIs alone do not determine",
    MultiInstanceRoIHead: "it predicts several objects for each RoI, each with an fc_cls",
    TridentRoIHead: "its backbone has three outputs for each image of a training batch",
}


class StageMean(nn.Module):
    """Mean of embeddings and logits over a cascade's stages, as a module that recorders see."""

    def forward(
        self, embeddings: Sequence[Tensor], logits: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Means ``[n, D]`` and ``[n, C]`` of the stages' embeddings and logits."""
        return torch.stack(list(embeddings)).mean(0), torch.stack(list(logits)).mean(0)


def require_pair(student: nn.Module, teacher: nn.Module) -> None:
    """Require that both sides score given RoIs, of equally many classes.

    Raises:
        TypeError: If a side is no two-stage detector with a supported head.
        kd_det.algorithms.WiringError: If their numbers of classes differ.
    """
    require_two_stage(student, "student")
    require_two_stage(teacher, "teacher")
    if num_classes(student) != num_classes(teacher):
        raise WiringError(
            f"the student has {num_classes(student)} classes and the teacher "
            f"{num_classes(teacher)}; both must be trained on the same classes"
        )


def scores_rois(detector: nn.Module) -> bool:
    """Tell whether a detector has an RoI head that scores given RoIs."""
    return _why_not(detector) is None


def require_two_stage(detector: nn.Module, who: str) -> None:
    """Raise ``TypeError`` unless ``detector`` has an RoI head that scores given RoIs."""
    reason = _why_not(detector)
    if reason is not None:
        head = type(getattr(detector, "roi_head", None)).__name__
        raise UnsupportedTypeError(
            "kd_det needs two-stage detectors whose RoI head is mmdet's StandardRoIHead or "
            "CascadeRoIHead or derived from one (Faster, Mask, Cascade, HTC, Double-Head and "
            f"others that have an fc_cls in each box head); the {who} is a "
            f"{type(detector).__name__} with roi_head {head}: {reason}"
        )


def is_cascade(detector: nn.Module) -> bool:
    """Tell whether a detector has several box heads, one after the other."""
    return isinstance(getattr(detector, "roi_head", None), CascadeRoIHead)


def box_heads(detector: TwoStageDetector) -> list[Any]:
    """List the box head of each stage; one for a detector that is no cascade."""
    head = detector.roi_head.bbox_head
    return list(head) if is_cascade(detector) else [head]


def roi_extractors(detector: TwoStageDetector) -> list[str]:
    """Name the modules that are called with the RoIs of each stage."""
    name = "roi_head.bbox_roi_extractor"
    if not is_cascade(detector):
        return [name]
    return [f"{name}.{stage}" for stage in range(detector.roi_head.num_stages)]


def num_classes(detector: Any) -> int:
    """Number of foreground classes of the RoI box heads."""
    return box_heads(detector)[0].num_classes


def choose_stage(
    option: str | None, student: TwoStageDetector, teacher: TwoStageDetector
) -> str | None:
    """Choose the stages of ``teacher`` that score the student's RoIs; None for a single box head.

    The option is ``'same'``, ``'last'``, ``'mean'``, or None for the default of this pair.

    Raises:
        ValueError: If the option is unknown or does not fit the two; names both.
    """
    found = (
        f"the student is a {_describe(student)} and the teacher a {_describe(teacher)}, "
        f"found teacher_stage={option!r}"
    )
    if option is not None and option not in TEACHER_STAGES:
        raise InvalidInputError(f"expected teacher_stage None or one of {TEACHER_STAGES}; {found}")
    if not is_cascade(teacher):
        if option is not None:
            raise InvalidInputError(f"teacher_stage needs a teacher that is a cascade; {found}")
        return None
    equal = is_cascade(student) and len(box_heads(student)) == len(box_heads(teacher))
    if option == "same" and not equal:
        raise InvalidInputError(
            f"teacher_stage 'same' needs cascades of equally many stages; {found}"
        )
    return option or ("same" if equal else "last")


def add_stage_mean(detector: TwoStageDetector) -> None:
    """Give a cascade the module ``roi_head.stage_mean``, without parameters."""
    detector.roi_head.add_module("stage_mean", StageMean())


def _why_not(detector: nn.Module) -> str | None:
    head: Any = getattr(detector, "roi_head", None)
    if not isinstance(detector, TwoStageDetector):
        return "this is no TwoStageDetector"
    if not isinstance(head, (StandardRoIHead, CascadeRoIHead)):
        return "the head derives from neither of the two"
    for kind, reason in KNOWN_NOT_TO_WORK.items():
        if isinstance(head, kind):
            return reason
    if not head.with_bbox:
        return "it has no box head"
    given = ("stage", "x", "rois") if is_cascade(detector) else ("x", "rois")
    try:
        inspect.signature(head._bbox_forward).bind(**dict.fromkeys(given))
    except TypeError as error:
        return f"its _bbox_forward does not take {', '.join(given)} alone ({error})"
    lacking = [
        type(box_head).__name__
        for box_head in box_heads(detector)
        if not isinstance(getattr(box_head, "fc_cls", None), nn.Module)
    ]
    return f"no fc_cls in {', '.join(lacking)}" if lacking else None


def _describe(detector: TwoStageDetector) -> str:
    name = type(detector).__name__
    if not is_cascade(detector):
        return f"{name} with one box head" if hasattr(detector, "roi_head") else name
    return f"{name} of {len(box_heads(detector))} stages"


def clear_history(detector: nn.Module) -> None:
    """Empty the statistics of past batches that Dynamic R-CNN's head keeps."""
    for name in ("iou_history", "beta_history"):
        getattr(getattr(detector, "roi_head", None), name, []).clear()
