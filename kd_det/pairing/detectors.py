"""Read a detector before it is paired: shapes, classes, heads, input."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmdet.models.detectors import SemiBaseDetector, TwoStageDetector
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from torch import nn

from kd_det.algorithms import heads
from kd_det.errors import UnsupportedTypeError
from kd_det.pairing import PairingError
from kd_det.pairing.start_weights import (
    drop_downloads,
    nested_dicts,
    pretrained_inits,
    set_start,
)
from kd_det.pairing.text import read_config

# Of the image on which shapes are read. A multiple of all strides; on the meta device its size
# costs nothing.
SIDE = 512
# On a CPU, for the few models that cannot be built without values.
SMALL_SIDE = 128


@dataclass(frozen=True)
class Level:
    """A map of a pyramid: place among the outputs, channels, pixels of the image for one of it."""

    index: int
    channels: int
    stride: int


@dataclass(frozen=True)
class Detector:
    """A detector: its config, and the model built from it.

    Args:
        name: The config's name or path.
        who: ``'student'`` or ``'teacher'``.
        cfg: The whole config.
        model_cfg: The detector's part of it, with the classes of the data.
        model: The detector, mostly on the meta device.
        levels: Its pyramid, fine to deep.
        own_classes: Their number in its own config.
        start: The weights that its config loads, in a sentence; empty without.
    """

    name: str
    who: str
    cfg: dict[str, Any]
    model_cfg: dict[str, Any]
    model: nn.Module
    levels: list[Level]
    own_classes: int
    start: str = ""

    @property
    def title(self) -> str:
        """Side, kind and config, as messages name it."""
        return f"the {self.who} {type(self.model).__name__} ({self.name})"

    @property
    def pyramid(self) -> str:
        """Name of the module whose output is the pyramid."""
        return "neck" if hasattr(self.model, "neck") else "backbone"

    @property
    def embeddings(self) -> list[int]:
        """Size of the embedding of each box head."""
        return [box_head.fc_cls.in_features for box_head in heads.box_heads(self.model)]

    @property
    def box_heads(self) -> list[str]:
        """Name of the box head of each stage."""
        name = "roi_head.bbox_head"
        if not heads.is_cascade(self.model):
            return [name]
        return [f"{name}.{stage}" for stage in range(len(self.embeddings))]


def detector_config(cfg: dict[str, Any], name: str, who: str) -> dict[str, Any]:
    """The detector's part of a config, with the data preprocessor that MMEngine would give it.

    Raises:
        PairingError: If it is not the config of a detector.
        TypeError: Unless it is a two-stage detector.
    """
    found = cfg.get("model")
    model_cfg = copy.deepcopy(found) if isinstance(found, dict) else {}
    _require_two_stage(model_cfg, name, who)
    if cfg.get("data_preprocessor"):
        model_cfg.setdefault("data_preprocessor", copy.deepcopy(cfg["data_preprocessor"]))
    for part in nested_dicts(model_cfg):
        # MMEngine loads it after the children were initialised, which it knows by this name alone.
        for init in pretrained_inits(part):
            init["type"] = "Pretrained"
    return model_cfg


def read_detector(
    name: str, who: str, num_classes: int | None = None, cfg: dict[str, Any] | None = None
) -> Detector:
    """Read a detector's config and build it without weights.

    Args:
        name: A config file, or a config of a package (``mmdet::...``).
        who: ``'student'`` or ``'teacher'``.
        num_classes: What its heads are set to; None for its own.
        cfg: The config, if it was read already.

    Raises:
        FileNotFoundError: If the config, or a file of weights that it names, is missing.
        PairingError: If it is not the config of a detector.
        TypeError: Unless it is a two-stage detector with a supported RoI head; says why.
        kd_det.algorithms.CheckpointError: If weights that the student's config loads cannot be
            read.
    """
    cfg = read_config(name) if cfg is None else cfg
    model_cfg = detector_config(cfg, name, who)
    if who == "teacher":
        drop_downloads(model_cfg)
    model = _build(model_cfg)
    heads.require_two_stage(model, who)
    own = heads.num_classes(model)
    if num_classes is not None and num_classes != own:
        # The map of the scene that HTC learns has classes of its own.
        for part in nested_dicts(model_cfg["roi_head"]):
            if part.get("num_classes") == own:
                part["num_classes"] = num_classes
        model = _build(model_cfg)
    start = ""
    if who == "student" and cfg.get("load_from"):
        start = set_start(model_cfg, cfg["load_from"], model)
    return Detector(name, who, cfg, model_cfg, model, _levels(model, model_cfg), own, start)


def _require_two_stage(model_cfg: dict[str, Any], name: str, who: str) -> None:
    """Refuse other models before they are built, which may ask for packages or downloads."""
    with DefaultScope.overwrite_default_scope("mmdet"):
        kind: Any = MODELS.get(str(model_cfg.get("type")))
    if isinstance(kind, type) and issubclass(kind, SemiBaseDetector):
        raise PairingError(
            f"the {who} {name} is a {kind.__name__}, which trains a detector semi-supervised, from "
            "images without labels too; kd_det pairs detectors alone: give a config whose model is "
            "the detector inside it (its model.detector), with plain data loaders. A checkpoint of "
            "semi-supervised training may be given as it is"
        )
    if "backbone" not in model_cfg:
        raise PairingError(
            f"expected the config of a detector as {who}, found no model with a backbone in "
            f"{name}; give one like mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py"
        )
    if kind is None:
        raise PairingError(
            f"{name} has a model of type {model_cfg.get('type')!r}, which is not registered; its "
            "config has to import it (custom_imports)"
        )
    if not issubclass(kind, TwoStageDetector):
        raise UnsupportedTypeError(
            f"kd_det pairs two-stage detectors, and the {who} is a {kind.__name__}, which is no "
            "TwoStageDetector"
        )


def _build(model_cfg: dict[str, Any]) -> Any:
    """The detector on the meta device, if it can be built there."""
    try:
        return _build_on("meta", model_cfg)
    except RuntimeError as error:
        if not _needs_values(error):
            raise
        # Swin's and ConvNeXt's drop paths ask for them.
        return _build_on("cpu", model_cfg)


@torch.no_grad()
def _build_on(device: str, model_cfg: dict[str, Any]) -> Any:
    with DefaultScope.overwrite_default_scope("mmdet"), torch.device(device):
        model = MODELS.build(ConfigDict(copy.deepcopy(model_cfg))).eval()
    # Random weights may overflow in a deep model, as DetectoRS's do, and torchvision's deformable
    # convolution crashes on an offset that is no number.
    for parameter in model.parameters():
        parameter.zero_()
    return model


@torch.no_grad()
def _levels(model: Any, model_cfg: dict[str, Any]) -> list[Level]:
    """The pyramid of a detector that was built."""
    device = next(model.parameters()).device
    side = SIDE if device.type == "meta" else SMALL_SIDE
    try:
        with torch.device(device):
            maps = model.extract_feat(torch.zeros(1, 3, side, side))
    except RuntimeError as error:
        if device.type != "meta" or not _needs_values(error):
            raise
        return _levels(_build_on("cpu", model_cfg), model_cfg)
    return [Level(i, x.shape[1], side // x.shape[2]) for i, x in enumerate(maps)]


def _needs_values(error: RuntimeError) -> bool:
    """Whether the error is one of the meta device, which has no values."""
    return "meta" in str(error).lower()


def short_name(name: str) -> str:
    """A config's name without package, folder and ending."""
    return Path(name.rpartition("::")[2]).stem
