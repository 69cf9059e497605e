"""Distiller configs of the methods for dense heads."""

from __future__ import annotations

from typing import Any

from small_dense import CLASSES, convs, embeddings, levels_of

HEAD = dict(type="ModuleOutputs", source="bbox_head")
POSITIVES = dict(type="kd_det.Positives", source="bbox_head")
BOXES = dict(type="kd_det.Boxes", source="bbox_head")


def of(side: str, recorder: str, data_idx: int | None = None, **more: Any) -> dict[str, Any]:
    """An argument of a loss."""
    found = dict(recorder=recorder, from_student=side == "student", **more)
    return found if data_idx is None else dict(found, data_idx=data_idx)


def kd_parts(name: str) -> dict[str, Any]:
    """Class maps and boxes, as in BCKD."""
    classes = dict(
        s_logits=of("student", "head", 0),
        t_logits=of("teacher", "head", 0),
        positives=of("student", "positives", 0),
    )
    boxes = dict(classes, s_boxes=of("student", "boxes"), t_boxes=of("teacher", "boxes"))
    if name == "yolox":
        for side in ("student", "teacher"):
            classes[f"{side[0]}_objectness"] = of(side, "head", 2)
    return dict(
        student_recorders=dict(head=HEAD, positives=POSITIVES, boxes=BOXES),
        teacher_recorders=dict(head=HEAD, boxes=BOXES),
        distill_losses=dict(
            loss_kd=dict(type="kd_det.BinaryKDLoss"), loss_boxes=dict(type="kd_det.BoxKDLoss")
        ),
        loss_forward_mappings=dict(loss_kd=classes, loss_boxes=boxes),
    )


def cross_parts(name: str, depth: int, widths: tuple[int, int] = (8, 8)) -> dict[str, Any]:
    cross: dict[str, Any] = {}
    for branch in ("cls", "box"):
        head = dict(type="kd_det.CrossHead", branch=branch, depth=depth, decode=branch == "box")
        channels = [[width] * levels_of(name) for width in widths]
        to = dict(type="kd_det.PyramidConnector", in_channels=channels[0], out_channels=channels[1])
        cross[branch] = head if widths[0] == widths[1] else [to, head]
    feats = {
        branch: convs(name, branch, depth) if depth else dict(type="ModuleOutputs", source="neck")
        for branch in cross
    }
    return dict(
        student_recorders=dict(feats, positives=POSITIVES),
        teacher_recorders=dict(head=HEAD, boxes=BOXES),
        connectors=cross,
        distill_losses=dict(
            loss_cls=dict(type="kd_det.BinaryKDLoss"),
            loss_box=dict(type="kd_det.BoxKDLoss", weight="teacher", giou=True),
        ),
        loss_forward_mappings=dict(
            loss_cls=dict(
                s_logits=of("student", "cls", connector="cls"),
                t_logits=of("teacher", "head", 0),
                positives=of("student", "positives", 0),
            ),
            loss_box=dict(
                s_boxes=of("student", "box", connector="box"),
                t_boxes=of("teacher", "boxes"),
                t_logits=of("teacher", "head", 0),
            ),
        ),
    )


def ld_parts() -> dict[str, Any]:
    return dict(
        student_recorders=dict(head=HEAD, positives=dict(POSITIVES, region=0.25)),
        teacher_recorders=dict(head=HEAD),
        distill_losses=dict(loss_ld=dict(type="kd_det.LDLoss", region_weight=0.5)),
        loss_forward_mappings=dict(
            loss_ld=dict(
                s_dists=of("student", "head", 1),
                t_dists=of("teacher", "head", 1),
                positives=of("student", "positives", 0),
                region=of("student", "positives", 1),
            )
        ),
    )


def nd_parts(name: str, dim: int = 8, connector: dict | None = None) -> dict[str, Any]:
    s_emb = of("student", "embedding")
    return dict(
        student_recorders=dict(embedding=embeddings(name), positives=POSITIVES),
        teacher_recorders=dict(embedding=embeddings(name)),
        distill_losses=dict(loss_nd=dict(type="kd_det.NDLoss", num_classes=CLASSES, embed_dim=dim)),
        connectors=dict(to_teacher=connector) if connector else {},
        loss_forward_mappings=dict(
            loss_nd=dict(
                s_emb=dict(s_emb, connector="to_teacher") if connector else s_emb,
                t_emb=of("teacher", "embedding"),
                labels=of("student", "positives", 0),
            )
        ),
    )
