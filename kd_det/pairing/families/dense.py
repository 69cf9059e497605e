"""Detectors that predict at each position of each level."""

from __future__ import annotations

from typing import Any

from kd_det.pairing.families.base import Family


class Dense(Family):
    """RetinaNet, FCOS, ATSS, GFL, RTMDet, YOLOX and their like; CondInst by its pyramid."""

    name = "dense"

    def set_classes(self, model_cfg: dict[str, Any], own: int, number: int) -> None:
        """Set the number of classes; an RPN alone has none to set."""
        if "bbox_head" in model_cfg:
            super().set_classes(model_cfg, own, number)
