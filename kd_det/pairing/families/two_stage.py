"""Detectors that score RoIs."""

from __future__ import annotations

from typing import Any

from torch import nn

from kd_det.algorithms import heads
from kd_det.errors import UnsupportedTypeError
from kd_det.pairing.families.base import Family
from kd_det.registry import type_name


class TwoStage(Family):
    """Faster, Mask, Cascade R-CNN and their like; Sparse R-CNN too, by its pyramid."""

    name = "two_stage"
    parts = ("roi_head",)
    start = ("rpn_head", "roi_head")

    def require(self, model: Any, who: str) -> None:
        """Refuse detectors without a box head, and TridentNet."""
        if not getattr(model.roi_head, "with_bbox", True):
            raise UnsupportedTypeError(f"the {who} {type(model).__name__} has no box head")
        if type(model.roi_head).__name__ == "TridentRoIHead":
            raise UnsupportedTypeError(
                f"the {who} {type(model).__name__} has three maps for each image in training and "
                "one in evaluation, so that those of student and teacher differ; expected a "
                "backbone with one"
            )

    def set_classes(self, model_cfg: dict[str, Any], own: int, number: int) -> None:
        """Set the number of classes; refuse CrowdDet, which is of one class."""
        if type_name(model_cfg["roi_head"]) == "MultiInstanceRoIHead":
            raise UnsupportedTypeError(
                f"mmdet's CrowdDet finds objects of one class alone, and the data has {number}; "
                "take a Faster R-CNN instead"
            )
        super().set_classes(model_cfg, own, number)

    def num_classes(self, model: Any) -> int:
        """Number of classes of the box heads."""
        return heads.num_classes(model)

    def describe(self, model: Any) -> dict[str, str]:
        """Describe the RoI head and the size of its embedding."""
        found = heads.box_heads(model)
        stages = f"{len(found)} x " if len(found) > 1 else ""
        name = f"{type(model.roi_head).__name__} with {stages}{type(found[0]).__name__}"
        sizes = [x.fc_cls.in_features for x in found] if heads.scores_rois(model) else []
        rows = {"head": name}
        if sizes:
            rows["embedding"] = ", ".join(dict.fromkeys(map(str, sizes)))
        return rows

    def start_modules(self, student: nn.Module, teacher: nn.Module) -> list[str]:
        """RPN and RoI head; tensors whose shapes differ are left out one by one."""
        return list(self.start)
