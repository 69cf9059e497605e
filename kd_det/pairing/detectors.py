"""Read a detector before it is paired: shapes, classes, heads, input."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope

from kd_det.algorithms import heads
from kd_det.compat.mmcv.common import MissingOpError
from kd_det.errors import MissingPackageError, UnsupportedTypeError
from kd_det.pairing import PairingError
from kd_det.pairing.families import Family, find_family
from kd_det.pairing.start_weights import (
    drop_downloads,
    nested_dicts,
    pretrained_inits,
    set_start,
)
from kd_det.pairing.text import read_config

# Side of the image on which shapes are read. A multiple of all strides; on the meta device its size
# costs nothing.
SIDE = 512
# The same on a CPU, for the few models that cannot be built without values.
SMALL_SIDE = 128
# Asks for the process group when it is built. PyTorch's has the same statistics, and MMEngine makes
# it a plain one in a single process.
MMCV_SYNC_BN = "MMSyncBN"


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
        family: Its kind.
        cfg: The whole config.
        model_cfg: The detector's part of it, with the classes of the data.
        model: The detector, mostly on the meta device.
        levels: Its pyramid, fine to deep.
        own_classes: Their number in its own config.
        start: The weights that its config loads, in a sentence; empty without.
    """

    name: str
    who: str
    family: Family
    cfg: dict[str, Any]
    model_cfg: dict[str, Any]
    model: Any
    levels: list[Level]
    own_classes: int
    start: str = ""

    @property
    def title(self) -> str:
        """Side and kind, as messages name it beside the names of both configs."""
        return f"the {self.who} {type(self.model).__name__}"

    @property
    def pyramid(self) -> str:
        """Name of the module whose output is the pyramid."""
        return "backbone" if getattr(self.model, "neck", None) is None else "neck"

    @property
    def num_classes(self) -> int:
        """Number of classes that it tells apart."""
        return self.family.num_classes(self.model)

    @property
    def scores_rois(self) -> bool:
        """Whether it has box heads that score given RoIs."""
        return heads.scores_rois(self.model)

    @property
    def embeddings(self) -> list[int]:
        """Size of the embedding of each box head; none without."""
        if not self.scores_rois:
            return []
        return [box_head.fc_cls.in_features for box_head in heads.box_heads(self.model)]

    @property
    def box_heads(self) -> list[str]:
        """Name of the box head of each stage that scores RoIs."""
        name = "roi_head.bbox_head"
        if not heads.is_cascade(self.model):
            return [name] if self.scores_rois else []
        return [f"{name}.{stage}" for stage in range(len(self.embeddings))]


def detector_config(cfg: dict[str, Any], name: str, who: str) -> dict[str, Any]:
    """The detector's part of a config, with the data preprocessor that MMEngine would give it.

    Raises:
        PairingError: If it is not the config of a detector that can be paired.
        TypeError: If it is of no known family.
    """
    found = cfg.get("model")
    model_cfg = copy.deepcopy(found) if isinstance(found, dict) else {}
    find_family(model_cfg, name, who)
    if cfg.get("data_preprocessor"):
        model_cfg.setdefault("data_preprocessor", copy.deepcopy(cfg["data_preprocessor"]))
    for part in nested_dicts(model_cfg):
        # MMEngine loads it after the children were initialised, which it knows by this name alone.
        for init in pretrained_inits(part):
            init["type"] = "Pretrained"
        if part.get("type") == MMCV_SYNC_BN:
            part["type"] = "SyncBN"
    return model_cfg


def read_detector(
    name: str,
    who: str,
    num_classes: int | None = None,
    cfg: dict[str, Any] | None = None,
    trained: bool | None = None,
) -> Detector:
    """Read a detector's config and build it without weights.

    Args:
        name: A config file, or a config of a package (``mmdet::...``).
        who: ``'student'`` or ``'teacher'``.
        num_classes: What its heads are set to; None for its own.
        cfg: The config, if it was read already.
        trained: Whether it is to be trained, from the weights that its config names; None for a
            student alone.

    Raises:
        FileNotFoundError: If the config, or a file of weights that it names, is missing.
        PairingError: If it is not the config of a detector that can be paired, or mmdet does not
            build it.
        TypeError: If it is of no known family, or has no pyramid; says why.
        kd_det.errors.MissingPackageError: If a part of it needs a package that is not installed.
        kd_det.algorithms.CheckpointError: If weights that the student's config loads cannot be
            read.
    """
    cfg = read_config(name) if cfg is None else cfg
    model_cfg = detector_config(cfg, name, who)
    trained = who == "student" if trained is None else trained
    # A teacher's own checkpoint replaces those of its parts, a student's may lack some.
    if who == "teacher" and (not trained or cfg.get("load_from")):
        drop_downloads(model_cfg)
    family = find_family(model_cfg, name, who)
    model = _build(model_cfg, name, who)
    family.require(model, who)
    own = family.num_classes(model)
    if num_classes is not None and num_classes != own:
        family.set_classes(model_cfg, own, num_classes)
        model = _build(model_cfg, name, who)
    start = ""
    if trained and cfg.get("load_from"):
        start = set_start(model_cfg, cfg["load_from"], model, who)
    try:
        levels = _levels(model, model_cfg, who)
    except MissingOpError as error:
        raise MissingPackageError(f"the {who} {name} cannot run here: {error}") from error
    return Detector(name, who, family, cfg, model_cfg, model, levels, own, start)


def class_tensors(detector: Detector) -> set[str]:
    """Names of the tensors whose rows follow from the number of classes."""
    more = copy.deepcopy(detector.model_cfg)
    detector.family.set_classes(more, detector.num_classes, detector.num_classes + 1)
    other = _build(more, detector.name, detector.who).state_dict()
    own = detector.model.state_dict()
    return {key for key, value in own.items() if other[key].shape[:1] != value.shape[:1]}


def _build(model_cfg: dict[str, Any], name: str, who: str) -> Any:
    """The detector on the meta device, if it can be built there."""
    try:
        return _build_somewhere(model_cfg)
    except RuntimeError as error:
        if "not installed" not in str(error):  # as BoxInst's preprocessor says
            raise
        raise MissingPackageError(_lacks_package(name, who, error)) from error
    except ImportError as error:
        raise MissingPackageError(_lacks_package(name, who, error)) from error
    except (KeyError, TypeError) as error:
        # MMEngine's of a type that is not registered, and Python's of a constructor's arguments.
        if not any(text in str(error) for text in ("is not in the", "__init__() ")):
            raise
        raise PairingError(f"the {who} {name} cannot be built: {error.args[0]}") from error


def _build_somewhere(model_cfg: dict[str, Any]) -> Any:
    try:
        return _build_on("meta", model_cfg)
    except RuntimeError as error:
        if not _needs_values(error):
            raise
        # Swin's and ConvNeXt's drop paths ask for them.
        return _build_on("cpu", model_cfg)


def _lacks_package(name: str, who: str, error: Exception) -> str:
    reason = " ".join(str(error).split())  # messages of mmdet have the indent of their source
    return f"the {who} {name} needs a package that is not installed: {reason}"


@torch.no_grad()
def _build_on(device: str, model_cfg: dict[str, Any]) -> Any:
    cfg = copy.deepcopy(model_cfg)
    for part in nested_dicts(cfg):
        if part.get("pretrained") is True:  # timm's backbones download when they are built
            part["pretrained"] = False
    with DefaultScope.overwrite_default_scope("mmdet"), torch.device(device):
        model = MODELS.build(ConfigDict(cfg)).eval()
    # Random weights may overflow in a deep model, as DetectoRS's do, and torchvision's deformable
    # convolution crashes on an offset that is NaN.
    for parameter in model.parameters():
        parameter.zero_()
    return model


@torch.no_grad()
def _levels(model: Any, model_cfg: dict[str, Any], who: str) -> list[Level]:
    """The pyramid of a detector that was built."""
    on_meta = device_of(model).type == "meta"
    side = SIDE if on_meta else SMALL_SIDE
    try:
        maps = run(model, side)
    except RuntimeError:
        if on_meta:  # which has no values, and not all operations
            return _levels(_build_on("cpu", model_cfg), model_cfg, who)
        side = SIDE  # SSD's last maps need more
        maps = run(model, side)
    maps = [maps] if isinstance(maps, torch.Tensor) else maps
    if not all(isinstance(x, torch.Tensor) and x.dim() == 4 for x in maps):
        raise UnsupportedTypeError(
            f"the {who} {type(model).__name__} has no pyramid: expected maps [N, C, H, W] of "
            f"extract_feat, found {', '.join(type(x).__name__ for x in maps)}"
        )
    return [Level(i, x.shape[1], side // x.shape[2]) for i, x in enumerate(maps)]


def run(model: Any, side: int) -> Any:
    """Run backbone and neck on a blank image of ``side`` pixels a side."""
    with torch.device(device_of(model)):
        return model.extract_feat(torch.zeros(1, 3, side, side))


def device_of(model: Any) -> torch.device:
    # DINO's own parameters are on the CPU wherever it is built.
    return next(model.backbone.parameters()).device


def _needs_values(error: RuntimeError) -> bool:
    """Whether the error is one of the meta device, which has no values."""
    return "meta" in str(error).lower()


def short_name(name: str) -> str:
    """A config's name without package, folder and ending."""
    return Path(name.rpartition("::")[2]).stem
