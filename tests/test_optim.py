"""Settings by parameter name reach student and connectors, and the teacher is passed over."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from small import build, digits_config
from torch import nn


def test_connectors_learn_faster_and_the_teacher_not_at_all(
    digits: Path, teacher_ckpt: Path, tmp_path: Path, monkeypatch
):
    from mmengine.optim.optimizer import default_constructor

    warnings: list[str] = []
    monkeypatch.setattr(
        default_constructor,
        "print_log",
        lambda text, level=20, **_: warnings.append(text) if level > 20 else None,
    )
    options = {"model.teacher_ckpt": str(teacher_ckpt)}
    cfg = digits_config("review_nd_kd", digits, tmp_path, **options)
    model = build(cfg.model)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer

    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    expected = {id(p): 2e-3 for p in model.student.parameters()}
    expected |= {id(p): 2e-2 for p in model.distiller.connectors.parameters()}
    assert rates == expected
    assert warnings == []


class Decayed(nn.Module):
    """As much of a detector as layer-wise decay of mmdet's ConvNeXt looks at."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = type("ConvNeXt", (nn.Module,), {})()
        self.backbone.stages = nn.ModuleList([nn.Sequential(nn.Linear(2, 2))])
        self.neck = nn.Linear(2, 2)


class Pair(nn.Module):
    """As much of an algorithm as the constructor looks at."""

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.architecture = student
        self.teacher = nn.Linear(2, 2).requires_grad_(False)
        self.distiller = nn.Module()
        self.distiller.connectors = nn.ModuleDict(dict(neck=nn.Linear(2, 2)))


def settings(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, tuple]:
    """Learning rate and decay of each parameter of a module, by name."""
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    return {
        name: (groups[id(p)]["lr"], groups[id(p)]["weight_decay"])
        for name, p in module.named_parameters()
    }


@pytest.mark.parametrize(
    ("constructor", "paramwise"),
    [
        (
            "LearningRateDecayOptimizerConstructor",
            dict(decay_rate=0.7, decay_type="layer_wise", num_layers=6),
        ),
        (
            "DefaultOptimWrapperConstructor",
            dict(custom_keys={"neck": dict(lr_mult=0.1)}, bias_decay_mult=0.0),
        ),
        ("DefaultOptimWrapperConstructor", None),
    ],
)
def test_the_student_is_optimized_as_it_is_alone(constructor: str, paramwise: dict | None):
    import mmdet.engine  # noqa: F401  (registers the constructor)

    student = Decayed()
    model = Pair(student)
    cfg = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=1.0, weight_decay=0.5))
    with DefaultScope.overwrite_default_scope("mmdet"):
        alone = build_optim_wrapper(
            student, dict(cfg, constructor=constructor, paramwise_cfg=paramwise)
        )
        together = build_optim_wrapper(
            model,
            dict(
                cfg,
                constructor="kd_det.DistillOptimWrapperConstructor",
                student_constructor=constructor,
                paramwise_cfg=paramwise,
            ),
        )
    assert settings(together.optimizer, student) == settings(alone.optimizer, student)
    # The student's settings by name are not for a connector that is called alike.
    connectors = settings(together.optimizer, model.distiller.connectors)
    assert {rate for rate, _ in connectors.values()} == {1.0}
    trained = sum(len(group["params"]) for group in together.optimizer.param_groups)
    assert trained == len(list(student.parameters())) + 2
