"""Describe two detectors in a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kd_det.columns import aligned
from kd_det.pairing.detectors import Detector
from kd_det.pairing.start_weights import describe_start


def make_table(teacher: Detector, student: Detector, teacher_ckpt: str | None) -> str:
    """A row for each property, a column for each side."""
    rows = [("", "teacher", "student"), ("config", teacher.name, student.name)]
    columns = [_properties(side) for side in (teacher, student)]
    for name in dict.fromkeys([*columns[0], *columns[1]]):
        rows.append((name, columns[0].get(name, "none"), columns[1].get(name, "none")))
    weights = teacher_ckpt or "not given yet"
    rows.append(("weights", weights, describe_start(student.model_cfg)))
    return "\n".join(aligned(rows))


def _properties(side: Detector) -> dict[str, str]:
    model: Any = side.model
    backbone = side.model_cfg["backbone"]
    depth = f"-{backbone['depth']}" if "depth" in backbone else ""
    neck = "none" if side.pyramid == "backbone" else type(model.neck).__name__
    classes = side.num_classes
    own = "" if classes == side.own_classes else f" ({side.own_classes} in its config)"
    return {
        "detector": type(model).__name__,
        "backbone": f"{type(model.backbone).__name__}{depth}",
        "neck": neck,
        "channels at strides": ", ".join(f"{x.channels} at {x.stride}" for x in side.levels),
        **side.family.describe(model),
        "classes": f"{classes}{own}",
        "input": _input(side.model_cfg.get("data_preprocessor") or {}),
        "parameters": f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M",
    }


def _input(preprocessor: dict[str, Any]) -> str:
    order = "RGB" if preprocessor.get("bgr_to_rgb") else "BGR"
    if preprocessor.get("mean") is None:
        return f"{order}, not normalised"
    return f"{order}, mean {_numbers(preprocessor['mean'])}, std {_numbers(preprocessor['std'])}"


def _numbers(values: float | Sequence[float]) -> str:
    values = [values] if isinstance(values, (int, float)) else values
    return "/".join(f"{value:.4g}" for value in values)
