"""Fit a method on dense heads to a pair: records of their layers, connectors, sizes."""

from __future__ import annotations

from typing import Any

from kd_det.pairing import dense_parts
from kd_det.pairing.detectors import Detector
from kd_det.registry import type_name

# Names of the records of such methods (configs/_base_/dense_losses.py).
OF_HEADS = ("head", "boxes", "positives", "cls_feats", "box_feats")
# CrossKD's losses on boxes; a pair has the second where the teacher predicts distributions.
CROSS_BOX, CROSS_DISTS = "loss_cross_box", "loss_cross_dists"
Records = list[tuple[str, str, dict[str, Any]]]


def reads_heads(distiller: dict[str, Any]) -> bool:
    """Whether losses read records of dense heads."""
    return any(record["recorder"] in OF_HEADS for _, _, record in _records(distiller))


def fit_heads(distiller: dict[str, Any], student: Detector, teacher: Detector) -> list[str]:
    """Fit a distiller's config to dense heads, in place; returns what was decided."""
    _choose_box_loss(distiller, teacher)
    heads = " and ".join(type(side.model.bbox_head).__name__ for side in (student, teacher))
    losses = ", ".join(distiller["distill_losses"])
    decisions = [f"the heads {heads} are compared by {losses}"]
    crossed = any(record["recorder"].endswith("_feats") for _, _, record in _records(distiller))
    depth = dense_parts.depth_of_crossing(student, teacher) if crossed else 0
    for side in (student, teacher):
        names = {
            record["recorder"]
            for _, _, record in _records(distiller)
            if record["from_student"] == (side.who == "student")
        }
        if any(argument == "region" for _, argument, _ in _records(distiller)):
            names.add("region")
        recorders = distiller[f"{side.who}_recorders"]
        for name in ("embedding", "logits", "targets"):  # of RoIs
            recorders.pop(name, None)
        recorders.update(dense_parts.recorders_of(side, names, depth))
    _add_objectness(distiller, student, teacher)
    if crossed:
        decisions.append(_fit_crossing(distiller, student, teacher, depth))
    if any(record["recorder"] == "embedding" for _, _, record in _records(distiller)):
        decisions += _fit_embeddings(distiller, student, teacher)
    return decisions


def _records(distiller: dict[str, Any]) -> Records:
    """Each loss with each of its arguments, and the record that the argument reads."""
    return [
        (loss, argument, record)
        for loss, mapping in distiller["loss_forward_mappings"].items()
        for argument, record in mapping.items()
    ]


def _choose_box_loss(distiller: dict[str, Any], teacher: Detector) -> None:
    """Keep CrossKD's loss on distributions if the teacher's head has them, else that on boxes."""
    losses, mappings = distiller["distill_losses"], distiller["loss_forward_mappings"]
    if CROSS_BOX in losses:
        dropped = CROSS_BOX if dense_parts.has_distributions(teacher) else CROSS_DISTS
        del losses[dropped], mappings[dropped]


def _add_objectness(distiller: dict[str, Any], student: Detector, teacher: Detector) -> None:
    for loss, mapping in distiller["loss_forward_mappings"].items():
        if type_name(distiller["distill_losses"][loss]) != "BinaryKDLoss":
            continue
        for side in (student, teacher):
            record = mapping[f"{side.who[0]}_logits"]
            # A CrossHead predicts classes without objectness.
            crossed = "connector" in mapping["s_logits"]
            if not crossed and dense_parts.scores_objects(side):
                mapping[f"{side.who[0]}_objectness"] = dict(record, data_idx=2)


def _fit_crossing(
    distiller: dict[str, Any], student: Detector, teacher: Detector, depth: int
) -> str:
    """Set the depth at which the student's maps enter the teacher's head, and join widths."""
    channels = [dense_parts.crossing_channels(side, depth) for side in (student, teacher)]
    text = (
        f"the student's maps enter the teacher's head after {depth} convolutions"
        if depth
        else "the student's pyramid runs through all of the teacher's head"
    )
    for name, connector in list(distiller["connectors"].items()):
        if type_name(connector) != "CrossHead":
            continue
        cross = dict(connector, depth=depth)
        joined = [_join(*channels), cross]
        distiller["connectors"][name] = cross if channels[0] == channels[1] else joined
    if channels[0] != channels[1]:
        arrows = dict.fromkeys(f"{s} -> {t}" for s, t in zip(*channels))
        text += f", by PyramidConnector {', '.join(arrows)}"
    return text


def _fit_embeddings(distiller: dict[str, Any], student: Detector, teacher: Detector) -> list[str]:
    sizes = [dense_parts.embedding_size(side) for side in (student, teacher)]
    for loss in distiller["distill_losses"].values():
        if "embed_dim" in loss:
            loss.update(embed_dim=sizes[1], num_classes=teacher.num_classes)
    if sizes[0] == sizes[1]:
        return []
    connectors = distiller.setdefault("connectors", {})
    connectors["embedding"] = _join(*([size] * len(student.levels) for size in sizes))
    for _, _, record in _records(distiller):
        if record["recorder"] == "embedding" and record["from_student"]:
            record["connector"] = "embedding"
    return [f"embeddings: PyramidConnector {sizes[0]} -> {sizes[1]}"]


def _join(in_channels: list[int], out_channels: list[int]) -> dict[str, Any]:
    return dict(type="kd_det.PyramidConnector", in_channels=in_channels, out_channels=out_channels)
