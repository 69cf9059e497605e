"""How strongly each loss pulls at the features, measured on models that are worked by hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from kd_det.hooks._gradient_norms import GradientNorms


class Student(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(3, 4)
        self.neck = Levels()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.neck(self.backbone(x))


class Levels(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return x * 1, x[:, :2] * 1


class Squares(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.square().sum() / 2


def toy(**losses: nn.Module) -> SimpleNamespace:
    torch.manual_seed(0)
    distiller = SimpleNamespace(distill_losses=nn.ModuleDict(losses))
    return SimpleNamespace(student=Student(), distiller=distiller)


def test_norms_are_those_of_all_levels_together():
    model = toy(loss_a=Squares(), loss_b=Squares())
    norms = GradientNorms(model, ["loss_a", "loss_b"], "neck")
    norms.recording = True
    fine, coarse = model.student(torch.randn(5, 3))
    losses = {
        "student.loss": fine.sum() + 2 * coarse.sum(),
        "student.loss_list": [coarse.sum(), 0 * fine.sum()],
        "student.accuracy": 100 * fine.sum(),
        "distill.loss_a": model.distiller.distill_losses.loss_a(fine),
        "distill.loss_b": model.distiller.distill_losses.loss_b(torch.cat([3 * fine, coarse], 1)),
    }
    expected = [
        (fine.numel() + 9 * coarse.numel()) ** 0.5,
        fine.norm().item(),
        (81 * fine.square().sum() + coarse.square().sum()).sqrt().item(),
    ]
    assert norms.measure(losses).tolist() == pytest.approx(expected)


def test_loss_scale_of_mixed_precision_keeps_small_gradients():
    model = toy(loss_a=nn.Identity())
    norms = GradientNorms(model, ["loss_a"], "neck")

    def measure(loss_scale: float) -> Tensor:
        norms.recording = True
        fine, _ = model.student.neck(torch.randn(5, 4, dtype=torch.float16, requires_grad=True))
        tiny = model.distiller.distill_losses.loss_a(fine.float().sum() * 1e-9)
        return norms.measure({"loss": fine.float().sum(), "distill.loss_a": tiny}, loss_scale)

    assert measure(1.0)[1] == 0
    found = measure(2.0**14)
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx([20**0.5, 1e-9 * 20**0.5], rel=1e-3)


def test_norms_are_float32_under_autocast():
    def measure(enabled: bool) -> Tensor:
        model = toy(loss_a=Squares())
        norms = GradientNorms(model, ["loss_a"], "neck")
        norms.recording = True
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            fine, coarse = model.student(torch.randn(5, 3))
            assert fine.dtype == (torch.bfloat16 if enabled else torch.float32)
            loss = model.distiller.distill_losses.loss_a(fine.float())
            return norms.measure({"loss": coarse.float().sum(), "distill.loss_a": loss})

    exact, found = measure(False), measure(True)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact, rtol=1e-2, atol=0)


def test_term_that_does_not_reach_the_features_is_told_of_once(caplog, monkeypatch):
    told = []
    monkeypatch.setattr(
        "kd_det.hooks._gradient_norms.print_log", lambda text, **_: told.append(text)
    )
    model = toy(loss_a=Squares(), loss_b=Squares(), loss_c=Squares())
    norms = GradientNorms(model, ["loss_a", "loss_b", "loss_c"], "neck")
    for _ in range(2):
        norms.recording = True
        x = model.student.backbone(torch.randn(5, 3))
        fine, _ = model.student.neck(x)
        found = model.distiller.distill_losses
        losses = {"loss": fine.sum(), "distill.loss_a": found.loss_a(x)}
        # Computed of nothing that learns; loss_c is absent in this step.
        losses["distill.loss_b"] = found.loss_b(torch.zeros(2))
        measured = norms.measure(losses)
        assert measured[0] > 0 and measured[1:].tolist() == [0, 0, 0]
    assert len(told) == 2
    assert "'loss_a' has no gradient at the outputs of the student's module 'neck'" in told[0]
    assert "'loss_b'" in told[1]


def test_features_without_a_task_loss_are_an_error():
    model = toy(loss_a=Squares())
    norms = GradientNorms(model, ["loss_a"], "neck")
    norms.recording = True
    x = model.student.backbone(torch.randn(5, 3))
    model.student.neck(x)
    with pytest.raises(ValueError, match=r"no task loss of \['loss'\] has a gradient .* 'neck'"):
        norms.measure({"loss": x.sum()})
