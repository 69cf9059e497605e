"""What a pair of detectors with encoders offers to methods, and how a method is fitted to it."""

from __future__ import annotations

from typing import Any

from mmdet.models.detectors import DetectionTransformer

from kd_det.pairing.detectors import Detector, Level
from kd_det.registry import type_name

# The type of the recorders of such methods, and the connector that joins widths.
RECORDER = "Memory"
CONNECTOR = "memory"


def why_no_memory(student: Detector, teacher: Detector) -> str:
    """Why a pair has no comparable memory of encoders; empty if it has."""
    sides = (student, teacher)
    without = [x.title for x in sides if not isinstance(x.model, DetectionTransformer)]
    if without:
        return f"no encoder in {' and '.join(without)}"
    encoded = [[level.stride for level in _encoded(side)] for side in sides]
    if encoded[0] == encoded[1]:
        return ""
    return (
        f"the encoder of {student.title} reads maps of strides {encoded[0]}, that of "
        f"{teacher.title} {encoded[1]}"
    )


def fit_memory(distiller: dict[str, Any], student: Detector, teacher: Detector) -> list[str]:
    """Fit a distiller's config to encoders, in place; returns what was decided."""
    names = []
    for side in (student, teacher):
        for name, recorder in distiller[f"{side.who}_recorders"].items():
            if type_name(recorder) == RECORDER:
                recorder.update(source="encoder", pyramid=side.pyramid)
                names.append(name)
    if not names:
        return []
    widths = [side.model.encoder.embed_dims for side in (student, teacher)]
    if widths[0] == widths[1]:
        return []
    number = len(_encoded(student))
    distiller.setdefault("connectors", {})[CONNECTOR] = dict(
        type="kd_det.PyramidConnector",
        in_channels=[widths[0]] * number,
        out_channels=[widths[1]] * number,
    )
    for mapping in distiller["loss_forward_mappings"].values():
        for record in mapping.values():
            if record["recorder"] in names and record["from_student"]:
                record["connector"] = CONNECTOR
    return [f"the encoders' memory: PyramidConnector {widths[0]} -> {widths[1]}"]


def _encoded(side: Detector) -> list[Level]:
    """The maps that the encoder reads: the last alone, unless it attends to several."""
    return side.levels[-getattr(side.model, "num_feature_levels", 1) :]
