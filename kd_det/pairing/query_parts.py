"""What a pair of detectors with queries offers to methods, and how a method is fitted to it."""

from __future__ import annotations

from typing import Any

from mmdet.models.detectors import DetectionTransformer

from kd_det.algorithms import query
from kd_det.errors import UserError
from kd_det.pairing.detectors import Detector
from kd_det.registry import type_name

NO_QUERIES = "no queries of a decoder in"
# The type of the recorders of such methods (configs/_base_/query_losses.py), and of their records
# the place of the embeddings of queries that are matched to objects.
RECORDER = "SharedQueries"
EMBEDDINGS = query.Outputs._fields.index("matched")
# The connectors that join widths.
OF_QUERIES, OF_EMBEDDINGS = "queries", "embedding"


def find_query_offers(student: Detector, teacher: Detector) -> dict[str, str]:
    """For each need of the losses on shared queries, why it is not met; empty if it is."""
    why = _why_no_shared_queries(student, teacher)
    return {"shared_queries": why, "query_embedding": why or _why_no_matching(teacher)}


def reads_queries(distiller: dict[str, Any]) -> bool:
    """Whether losses read decoder outputs of shared queries."""
    return bool(_recorders(distiller, "student"))


def fit_queries(distiller: dict[str, Any], student: Detector, teacher: Detector) -> list[str]:
    """Fit a distiller's config to decoders, in place; returns what was decided."""
    softmax = not student.model.bbox_head.loss_cls.use_sigmoid
    for loss in distiller["distill_losses"].values():
        if softmax and type_name(loss) in ("QueryKDLoss", "QueryBoxLoss"):
            loss["softmax"] = True
        if "embed_dim" in loss:
            loss.update(embed_dim=_width(teacher), num_classes=teacher.num_classes)
    for side in ("student", "teacher"):
        for name in ("embedding", "logits", "targets"):  # of RoIs
            distiller[f"{side}_recorders"].pop(name, None)
    numbers = [f"the teacher's {teacher.model.num_queries}"] + [
        f"{recorder['random']} that are drawn"
        for recorder in _recorders(distiller, "student")
        if recorder.get("random")
    ]
    decisions = [f"both decoders answer the same queries: {' and '.join(numbers)}"]
    if _width(student) != _width(teacher):
        decisions += _join_widths(distiller, student, teacher)
    return decisions


def used_connectors(distiller: dict[str, Any]) -> set[str]:
    """Names of the connectors of recorders."""
    return {x["connector"] for x in _recorders(distiller, "student") if x.get("connector")}


def _recorders(distiller: dict[str, Any], side: str) -> list[dict[str, Any]]:
    return [x for x in distiller[f"{side}_recorders"].values() if type_name(x) == RECORDER]


def _join_widths(distiller: dict[str, Any], student: Detector, teacher: Detector) -> list[str]:
    connectors = distiller.setdefault("connectors", {})
    arrow = f"{_width(teacher)} -> {_width(student)}"
    decisions = []
    embeddings = query.embedded_inputs(teacher.model)
    if embeddings:
        connectors[OF_QUERIES] = dict(
            type="kd_det.QueryConnector",
            in_features=_width(teacher),
            out_features=_width(student),
            embeddings=embeddings,
        )
        for recorder in _recorders(distiller, "student"):
            recorder["connector"] = OF_QUERIES
        decisions.append(f"the teacher's queries: QueryConnector {arrow}")
    for mapping in distiller["loss_forward_mappings"].values():
        if mapping.get("s_emb", {}).get("data_idx") == EMBEDDINGS:
            mapping["s_emb"]["connector"] = OF_EMBEDDINGS
            connectors[OF_EMBEDDINGS] = dict(
                type="kd_det.EmbeddingConnector",
                in_features=_width(student),
                out_features=_width(teacher),
            )
            decisions.append(f"EmbeddingConnector {_width(student)} -> {_width(teacher)}")
    return decisions


def _width(side: Detector) -> int:
    return int(side.model.decoder.embed_dims)


def _why_no_shared_queries(student: Detector, teacher: Detector) -> str:
    sides = (student, teacher)
    without = [x.title for x in sides if not isinstance(x.model, DetectionTransformer)]
    if without:
        return f"{NO_QUERIES} {' and '.join(without)}"
    try:
        kinds = [query.find_kind(side.model) for side in sides]
        inputs = [query.shared_inputs(side.model) for side in sides]
    except UserError as error:
        return str(error)
    if kinds[0] is not kinds[1] or inputs[0] != inputs[1]:
        return (
            f"the decoders of {student.title} and {teacher.title} take queries of different kinds"
        )
    if _two_stage(student) != _two_stage(teacher):
        first = [side.title for side in sides if _two_stage(side)]
        return f"{first[0]} alone starts its queries at boxes of its encoder (as_two_stage)"
    if student.model.bbox_head.cls_out_channels != teacher.model.bbox_head.cls_out_channels:
        return (
            f"the scores of {student.title} and {teacher.title} are not alike: one is a softmax "
            "with background, or they are trained on different classes"
        )
    return ""


def _two_stage(side: Detector) -> bool:
    return bool(getattr(side.model, "as_two_stage", False))


def _why_no_matching(teacher: Detector) -> str:
    if hasattr(teacher.model.bbox_head, "assigner"):
        return ""
    return f"{teacher.title} has no train_cfg, which says what its queries are matched to"
