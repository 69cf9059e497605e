"""What a pair of dense detectors offers to methods, and the recorders of its heads."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from mmdet.models.dense_heads import GFLHead, YOLOXHead
from torch import nn

from kd_det.algorithms import dense
from kd_det.algorithms.dense.layers import EXAMPLES, random_maps
from kd_det.errors import UserError
from kd_det.pairing.detectors import Detector
from kd_det.recorders import RAZOR_TASK_UTILS

HEAD = "bbox_head"
NO_DENSE_HEAD = "no dense head in"
# gamma of LD's valuable localisation region, as published.
REGION = 0.25
Recorders = dict[str, dict[str, Any]]


def find_dense_offers(student: Detector, teacher: Detector) -> dict[str, str]:
    """For each need of the losses on dense heads, why it is not met; empty if it is."""
    not_dense = _why_not_dense(student, teacher)
    why = not_dense or _why_softmax(student, teacher) or _why_other_grids(student, teacher)
    checks: dict[str, Callable[[Detector, Detector], str]] = {
        "class_maps": _why_no_class_maps,
        "distributions": _why_no_distributions,
        "dense_embedding": _why_no_embedding,
    }
    found = {need: why or check(student, teacher) for need, check in checks.items()}
    # The class loss is divided by the student's positives, which another student does not have.
    return {**found, "cross_head": not_dense or _why_no_cross_head(student, teacher)}


def has_distributions(*sides: Detector) -> bool:
    """Whether all predict distributions of edges over the same distances."""
    heads = [side.model.bbox_head for side in sides]
    return all(isinstance(x, GFLHead) for x in heads) and len({x.reg_max for x in heads}) == 1


def depth_of_crossing(student: Detector, teacher: Detector) -> int:
    """Number of convolutions after which the student's maps enter the teacher's head.

    Before the last one, as published; 0, the pyramid, where a branch has one alone, or the
    student's head is of another kind.
    """
    try:
        depths = [dense.depth_of(side.model.bbox_head, "cls") for side in (student, teacher)]
    except UserError:
        return 0
    return 0 if _why_other_grids(student, teacher) else max(0, min(depths) - 1)


def recorders_of(side: Detector, names: set[str], depth: int) -> Recorders:
    """The recorders of these records of a side.

    Args:
        side: A dense detector.
        names: Of ``head``, ``boxes``, ``positives``, ``region``, ``embedding``, ``cls_feats`` and
            ``box_feats``; with ``region``, ``positives`` has that region too.
        depth: Convolutions of a branch before ``cls_feats`` and ``box_feats`` are recorded.
    """
    head = side.model.bbox_head
    found: Recorders = {}
    if "head" in names:
        found["head"] = dict(type="ModuleOutputs", source=HEAD)
    if "boxes" in names:
        found["boxes"] = dict(type="kd_det.Boxes", source=HEAD)
    if "positives" in names:
        region = dict(region=REGION) if "region" in names else {}
        found["positives"] = dict(type="kd_det.Positives", source=HEAD, **region)
    if "embedding" in names:
        layers = dense.class_layers(_runnable_head(side))
        found["embedding"] = dense.pyramid_recorder(layers, inputs=True)
    for branch in ("cls", "box"):
        if f"{branch}_feats" in names:
            found[f"{branch}_feats"] = (
                dense.pyramid_recorder(dense.branch_layers(head, branch, depth))
                if depth
                else dict(type="ModuleOutputs", source=side.pyramid)
            )
    return found


def embedding_size(side: Detector) -> int:
    """Channels of the class branch's last maps."""
    layer = side.model.get_submodule(dense.class_layers(_runnable_head(side))[0].source)
    assert isinstance(layer, nn.Conv2d)
    return layer.in_channels


def crossing_channels(side: Detector, depth: int) -> list[int]:
    """Channels of a branch's maps of each level after ``depth`` convolutions."""
    if not depth:
        return [level.channels for level in side.levels]
    return [int(side.model.bbox_head.feat_channels)] * len(side.levels)


def scores_objects(side: Detector) -> bool:
    """Whether a head scores objects and classes apart, as YOLOX does."""
    return isinstance(side.model.bbox_head, YOLOXHead)


def _why_not_dense(student: Detector, teacher: Detector) -> str:
    without = [side.title for side in (student, teacher) if not dense.is_dense(side.model)]
    return f"{NO_DENSE_HEAD} {' and '.join(without)}" if without else ""


def _why_other_grids(student: Detector, teacher: Detector) -> str:
    try:
        shapes = [
            [list(x.shape[1:]) for x in head.forward(random_maps(head))[0]]
            for head in map(_runnable_head, (student, teacher))
        ]
    except (AttributeError, IndexError, TypeError, ValueError, RuntimeError):
        return (
            f"the class maps of {_heads(student, teacher)} are not the head's first output, one "
            f"map for each level, as those of {EXAMPLES} are"
        )
    if _why_other_strides(student, teacher) or shapes[0] == shapes[1]:
        return _why_other_strides(student, teacher)
    return (
        f"the grids of the heads differ: {student.title} predicts {shapes[0][0][0]} channels "
        f"of classes and {teacher.title} {shapes[1][0][0]}, for other anchors or classes"
    )


def _why_other_strides(student: Detector, teacher: Detector) -> str:
    strides = [[level.stride for level in side.levels] for side in (student, teacher)]
    if strides[0] == strides[1]:
        return ""
    return (
        f"the grids of the heads differ: {student.title} has strides {strides[0]} and "
        f"{teacher.title} {strides[1]}"
    )


@torch.no_grad()
def _runnable_head(side: Detector) -> Any:
    """The head, or a copy on a CPU where the meta device has not all of its operations."""
    head = side.model.bbox_head
    try:
        head.forward(random_maps(head))
    except RuntimeError:  # as of a deformable convolution
        head = copy.deepcopy(head).to_empty(device="cpu")
        for parameter in head.parameters():
            parameter.zero_()
    return head


def _why_softmax(*sides: Detector) -> str:
    soft = [side.title for side in sides if not _is_sigmoid(side)]
    return f"classes exclude one another (softmax) in {' and '.join(soft)}" if soft else ""


def _why_no_class_maps(student: Detector, teacher: Detector) -> str:
    reason = _refusal(student, dict(type="kd_det.Positives", source=HEAD))
    boxes = dict(type="kd_det.Boxes", source=HEAD)
    return reason or _refusal(student, boxes) or _refusal(teacher, boxes)


def _is_sigmoid(side: Detector) -> bool:
    return bool(getattr(side.model.bbox_head, "use_sigmoid_cls", True))


def _why_no_distributions(student: Detector, teacher: Detector) -> str:
    if has_distributions(student, teacher):
        return ""
    return (
        f"the boxes of both heads ({_heads(student, teacher)}) are not predicted as distributions "
        "over the same distances, as GFL's are"
    )


def _why_no_cross_head(student: Detector, teacher: Detector) -> str:
    """Predictions are all of the teacher's head; of the student there are maps and positives."""
    try:
        dense.depth_of(teacher.model.bbox_head, "cls")
    except UserError as error:
        return str(error)
    return (
        _why_softmax(teacher)
        or _why_other_strides(student, teacher)
        or _refusal(student, dict(type="kd_det.Positives", source=HEAD))
        or _refusal(teacher, dict(type="kd_det.Boxes", source=HEAD))
    )


def _why_no_embedding(student: Detector, teacher: Detector) -> str:
    try:
        for side in (student, teacher):
            dense.class_layers(_runnable_head(side))
    except UserError as error:
        return str(error)
    # The student's are the samples, and class centers are those of the teacher's.
    positives = dict(type="kd_det.Positives", source=HEAD)
    return _refusal(student, positives) or _refusal(teacher, positives)


def _refusal(side: Detector, recorder: dict[str, Any]) -> str:
    """Why a recorder refuses a detector; empty if it does not."""
    cfg = dict(recorder, type=f"{recorder['type']}Recorder")
    try:
        RAZOR_TASK_UTILS.build(cfg).initialize(side.model)
    except UserError as error:
        return str(error)
    return ""


def _heads(student: Detector, teacher: Detector) -> str:
    names = [type(side.model.bbox_head).__name__ for side in (student, teacher)]
    return " and ".join(dict.fromkeys(names))
