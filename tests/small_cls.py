"""Small real things for tests of classification."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from small import ROOT
from torch import Tensor

CLS = ROOT / "configs" / "cls"


def build_classifier(model: dict, scope: str = "mmpretrain") -> Any:
    """Build a model config as a Runner of that scope does, MMRazor's forms included."""
    from mmrazor.registry import MODELS

    with DefaultScope.overwrite_default_scope(scope):
        return MODELS.build(model)


def build_distiller(cfg: Config) -> Any:
    """The algorithm of a recipe, with a teacher of random weights."""
    torch.manual_seed(0)
    if "data_preprocessor" in cfg:
        cfg.model.setdefault("data_preprocessor", cfg.data_preprocessor)
    cfg.model.teacher = build_classifier(cfg.model.teacher, cfg.default_scope)
    cfg.model.teacher_ckpt = None
    return build_classifier(cfg.model, cfg.default_scope)


def give_random_centers(model: Any) -> None:
    """Class centers for every loss that asks for them, without a pre-pass."""
    from kd_det.centers import ClassCenters

    for loss in model.distiller.distill_losses.values():
        if hasattr(loss, "set_centers"):
            centers = ClassCenters(loss.num_classes + loss.background, loss.embed_dim)
            rows = centers.num_classes
            centers.update(torch.randn(rows, loss.embed_dim), torch.arange(rows))
            loss.set_centers(centers)


def batch(classes: int, side: int, number: int = 2) -> dict[str, Any]:
    """Random images with labels, as a data loader gives them."""
    from mmpretrain.structures import DataSample

    images = [torch.randint(0, 256, (3, side, side), dtype=torch.uint8) for _ in range(number)]
    samples = [DataSample().set_gt_label(i % classes) for i in range(number)]
    return dict(inputs=images, data_samples=samples)


def detection_batch(side: int, number: int = 2) -> dict[str, Any]:
    """Random images with two objects each, as a detector's data loader gives them."""
    from mmdet.structures import DetDataSample

    images = list(torch.randint(256, (number, 3, side, side), dtype=torch.uint8))
    samples = []
    for _ in images:
        sample = DetDataSample(metainfo=dict(img_shape=(side, side), ori_shape=(side, side)))
        boxes = torch.tensor([[4.0, 4, 40, 44], [20, 20, 60, 50]])
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([0, 1]))
        samples.append(sample)
    return dict(inputs=images, data_samples=samples)


def losses_of(model: Any, data: dict[str, Any]) -> dict[str, Tensor]:
    """Losses of one training step."""
    model.train()
    prepared = model.data_preprocessor(data, training=True)
    return model(**prepared, mode="loss")


def gradients_reach_student(model: Any, loss: Tensor) -> bool:
    """Whether a loss has a gradient at any parameter of the student, and none at the teacher."""
    parameters = [p for p in model.architecture.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    assert not any(p.requires_grad for p in model.teacher.parameters())
    return any(g is not None and g.abs().sum() > 0 for g in gradients)
