"""Base of the families: what pairing asks of a kind of detectors."""

from __future__ import annotations

from typing import Any

from torch import nn

from kd_det.pairing.start_weights import nested_dicts


class Family:
    """A kind of detectors: its heads, classes and where a student may start.

    Attributes:
        name: Its name.
        parts: Entries of a model's config whose heads have classes, the main one first.
        start: Modules beside the pyramid that a student of this kind may start from.
    """

    name: str
    parts: tuple[str, ...] = ("bbox_head", "mask_head")
    start: tuple[str, ...] = ("bbox_head",)

    def require(self, model: Any, who: str) -> None:
        """Raise ``TypeError``, with the reason, if a built detector cannot be paired."""

    def num_classes(self, model: Any) -> int:
        """Number of classes that a detector tells apart."""
        return int(model.bbox_head.num_classes)

    def set_classes(self, model_cfg: dict[str, Any], own: int, number: int) -> None:
        """Set the number of classes in a model's config, in place."""
        for name in self.parts:
            for part in nested_dicts(model_cfg.get(name)):
                # Heads may learn other things with classes of their own, as HTC's map of the scene.
                if part.get("num_classes") == own:
                    part["num_classes"] = number
        if self.parts[0] == "bbox_head":
            model_cfg["bbox_head"].setdefault("num_classes", number)

    def describe(self, model: Any) -> dict[str, str]:
        """Describe the heads, as rows of the table of both sides."""
        return {"head": type(model.bbox_head).__name__}

    def start_modules(self, student: nn.Module, teacher: nn.Module) -> list[str]:
        """List the modules in which the student may start from a teacher of its family.

        Type and all shapes agree: part of a chain of layers is of no use without the rest.
        """
        return [name for name in self.start if _is_alike(student, teacher, name)]


def _is_alike(student: nn.Module, teacher: nn.Module, name: str) -> bool:
    found = [getattr(side, name, None) for side in (student, teacher)]
    modules = [module for module in found if isinstance(module, nn.Module)]
    if len(modules) < 2 or type(modules[0]) is not type(modules[1]):
        return False
    shapes = [{k: v.shape for k, v in module.state_dict().items()} for module in modules]
    return bool(shapes[0]) and shapes[0] == shapes[1]
