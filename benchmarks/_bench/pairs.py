"""Teacher and student of a recipe with random weights, and random images: time needs no more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from kd_det.centers import ClassCenters
from kd_det.recipes import load_named


@dataclass(frozen=True)
class Shape:
    """Which models are timed, on what.

    Args:
        recipes: Path of a recipe, but for the method.
        image: Height and width.
        batch: Images.
        objects: In each image.
    """

    recipes: str
    image: tuple[int, int]
    batch: int
    objects: int = 8


SHAPES = {
    "digits": Shape("configs/digits/{}.py", (128, 128), 8),
    "coco": Shape("configs/frcnn_r101_r18_{}.py", (800, 1344), 1),
}


@dataclass
class Pair:
    """A distillation model on one batch; float16 trains with scaled gradients.

    Args:
        model: The algorithm.
        inputs: Images ``[N, 3, H, W]``.
        samples: Their data samples.
        dtype: Of autocast; float32 is none.
    """

    model: Any
    inputs: Tensor
    samples: list[Any]
    dtype: torch.dtype

    def __post_init__(self) -> None:
        # Learning rate 0: all of an optimizer's work, and every step the same.
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(trained, lr=0.0, momentum=0.9, weight_decay=1e-4)
        of_student = [p for p in self.model.student.parameters() if p.requires_grad]
        self.student_optimizer = torch.optim.SGD(
            of_student, lr=0.0, momentum=0.9, weight_decay=1e-4
        )
        self.scaler = _scaler(self.inputs.device, self.dtype)

    @contextmanager
    def step_of(self, optimizer: torch.optim.Optimizer) -> Iterator[None]:
        """Around a forward and backward pass: the same random numbers, then the update."""
        torch.manual_seed(0)
        optimizer.zero_grad()
        yield
        self.scaler.step(optimizer)
        self.scaler.update()

    def autocast(self) -> Any:
        device = self.inputs.device.type
        return torch.autocast(device, dtype=self.dtype, enabled=self.dtype != torch.float32)

    def total(self, losses: dict[str, Any]) -> Tensor:
        """The sum of the losses, scaled for float16."""
        return self.scaler.scale(self.model.parse_losses(losses)[0])

    def step(self) -> None:
        """A training step of the whole."""
        with self.step_of(self.optimizer):
            with self.autocast():
                losses = self.model.loss(self.inputs, self.samples)
            self.total(losses).backward()

    def student_step(self) -> None:
        """A training step of the student alone, of an algorithm of ours."""
        with self.step_of(self.student_optimizer):
            with self.autocast():
                inputs = self.model.speed.layout(self.inputs)
                losses = self.model.student(inputs, self.samples, mode="loss")
            self.total(losses).backward()


def _scaler(device: torch.device, dtype: torch.dtype) -> Any:
    """One that does nothing but for float16."""
    enabled = dtype == torch.float16
    if hasattr(torch.amp, "GradScaler"):  # since torch 2.3
        return torch.amp.GradScaler(device.type, enabled=enabled)
    return torch.cuda.amp.GradScaler(enabled=enabled)


def recipe(shape: Shape, method: str) -> Config:
    """The config of a method for this shape."""
    return load_named(Path(shape.recipes.format(method)))


def build_pair(
    cfg: Config, shape: Shape, device: torch.device, dtype: torch.dtype = torch.float32
) -> Pair:
    """The model of a recipe in training mode, its centers drawn at random."""
    torch.manual_seed(0)
    model = build(cfg.model).to(device)
    model.train()
    give_centers(model)
    return Pair(model, *batch(model, shape, device), dtype)


def build(model: Any) -> Any:
    """The algorithm of a config, with a teacher of random weights."""
    from mmrazor.registry import MODELS

    model = model.copy()
    with DefaultScope.overwrite_default_scope("mmdet"):
        model.teacher = MODELS.build(model.teacher)
        model.pop("teacher_ckpt", None)
        return MODELS.build(model)


def give_centers(model: Any) -> None:
    """Random class centers for all losses that read any."""
    for loss in model.distiller.distill_losses.values():
        if hasattr(loss, "set_centers"):
            centers = ClassCenters(len(loss.counts), loss.embed_dim)
            rows = torch.randn(len(loss.counts), loss.embed_dim)
            centers.update(rows, torch.arange(len(rows)))
            loss.set_centers(centers)


def batch(model: Any, shape: Shape, device: torch.device) -> tuple[Tensor, list[Any]]:
    """Random images with random boxes, preprocessed as in training."""
    from mmdet.testing import demo_mm_inputs

    student = model.student
    head = student.roi_head.bbox_head if hasattr(student, "roi_head") else student.bbox_head
    head = head[0] if isinstance(head, nn.ModuleList) else head
    data = demo_mm_inputs(
        shape.batch,
        [(3, *shape.image)] * shape.batch,
        num_items=[shape.objects] * shape.batch,
        num_classes=head.num_classes,
        device=str(device),
    )
    data = model.data_preprocessor(data, training=True)
    return data["inputs"], data["data_samples"]
