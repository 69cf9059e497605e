"""Find the family of a config's model; refuse models that cannot be paired."""

from __future__ import annotations

from typing import Any

from mmdet.models.detectors import DetectionTransformer, SingleStageDetector, TwoStageDetector
from mmdet.models.detectors.single_stage_instance_seg import SingleStageInstanceSegmentor
from mmdet.registry import MODELS
from mmengine.registry import DefaultScope

from kd_det.errors import UnsupportedTypeError
from kd_det.pairing import PairingError
from kd_det.pairing.families.base import Family
from kd_det.pairing.families.dense import Dense
from kd_det.pairing.families.query import Query
from kd_det.pairing.families.two_stage import TwoStage

DENSE = Dense()
FAMILIES: dict[type, Family] = {
    TwoStageDetector: TwoStage(),
    DetectionTransformer: Query(),
    SingleStageDetector: DENSE,
    SingleStageInstanceSegmentor: DENSE,
}
INSTANCES = (
    "which segments objects and has no head for boxes; a Mask R-CNN, CondInst or RTMDet-Ins would "
    "do"
)
INSIDE = "give a config whose model is the detector inside it"
# Models of mmdet that contain detectors or derive from them, and cannot be paired; by name, since
# older versions of mmdet lack some.
REFUSED: dict[str, str] = {
    "SemiBaseDetector": (
        "which trains a detector semi-supervised, from images without labels too; kd_det pairs "
        f"detectors alone: {INSIDE} (its model.detector), with plain data loaders. A checkpoint of "
        "semi-supervised training may be given as it is"
    ),
    "Mask2FormerVideo": INSTANCES,
    "BaseMOTModel": f"which tracks objects in videos; {INSIDE} (its model.detector)",
    "LAD": f"which has a teacher of its own; {INSIDE}, as a PAA",
    "KnowledgeDistillationSingleStageDetector": (
        "which has a teacher of its own; give the same config with the model's type of the student "
        "alone, as GFL and GFLHead"
    ),
    "FastRCNN": "whose proposals come from files; give a Faster R-CNN, which finds its own",
    "SOLO": INSTANCES,
    "SOLOv2": INSTANCES,
    "MaskFormer": INSTANCES,
    "TwoStagePanopticSegmentor": (
        "whose data has classes of things and of stuff, and its heads have things alone; give the "
        "Mask R-CNN in it"
    ),
    "GLIP": "which finds what a text names; kd_det pairs detectors of a fixed list of classes",
    "GroundingDINO": "which finds what a text names; kd_det pairs detectors of a fixed list of "
    "classes, as the DINO that it derives from",
    "Detectron2Wrapper": "whose parts are Detectron2's; give mmdet's config of the same detector",
}


def find_family(model_cfg: dict[str, Any], name: str, who: str) -> Family:
    """Find the family of a model by its config: building it may need packages or downloads.

    Args:
        model_cfg: The model's config.
        name: The config's name.
        who: ``'student'`` or ``'teacher'``.

    Raises:
        PairingError: If it is no detector, or one that cannot be paired; says what to give instead.
        TypeError: If its class is of no known family.
    """
    with DefaultScope.overwrite_default_scope("mmdet"):
        kind: Any = MODELS.get(str(model_cfg.get("type")))
    if isinstance(kind, type):
        for base in kind.__mro__:
            if base.__name__ in REFUSED:
                reason = REFUSED[base.__name__]
                raise PairingError(f"the {who} {name} is a {kind.__name__}, {reason}")
        for base, family in FAMILIES.items():
            if issubclass(kind, base):
                return family
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
    known = ", ".join(base.__name__ for base in FAMILIES)
    raise UnsupportedTypeError(
        f"kd_det pairs mmdet's detectors, which derive from {known}; the {who} is a {kind.__name__}"
    )
