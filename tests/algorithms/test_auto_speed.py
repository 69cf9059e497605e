"""The teacher's form that is chosen by timing computes the same, and stays what it was."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import pytest
import torch
from mmengine.logging import MessageHub
from small import runner
from test_speed import PLAIN, losses_and_gradients, model_with
from torch import nn

from kd_det.algorithms import auto_speed
from kd_det.algorithms.auto_speed import FORMS, Form, choose
from kd_det.algorithms.speed import Speed


@pytest.fixture(autouse=True)
def hub(request):
    """Give each test a message hub of its own, as each run has."""
    return MessageHub.get_instance(request.node.name)


@pytest.mark.parametrize("form", [None, *FORMS], ids=str)
def test_a_step_is_the_same(cfg, batch, monkeypatch, form):
    if torch.float64 not in PLAIN:
        PLAIN[torch.float64] = losses_and_gradients(model_with(cfg), batch, torch.float64)
    expected, _ = PLAIN[torch.float64]
    if form is not None:
        monkeypatch.setattr(auto_speed, "choose", lambda *_: form)
    model = model_with(cfg, auto=True)
    for _ in range(2):  # the first step decides
        found, _ = losses_and_gradients(model, batch, torch.float64)
        for name, value in found.items():
            torch.testing.assert_close(value, expected[name], rtol=1e-6, atol=1e-6)
    fused = not any(isinstance(each, nn.BatchNorm2d) for each in model.teacher.modules())
    assert form is None or fused == form.fuse_conv_bn


def test_the_student_and_what_reads_the_pyramid_see_the_usual_order(cfg, batch, monkeypatch):
    monkeypatch.setattr(auto_speed, "choose", lambda *_: Form(channels_last=True))
    model = model_with(cfg, auto=True)
    seen: dict[str, torch.Tensor] = {}
    model.teacher.backbone.conv1.register_forward_hook(lambda *x: seen.update(inside=x[2]))
    model.teacher.neck.register_forward_hook(lambda *x: seen.update(pyramid=x[2][0]))
    model.student.backbone.conv1.register_forward_hook(lambda *x: seen.update(student=x[2]))
    losses_and_gradients(model, batch)
    assert seen["inside"].is_contiguous(memory_format=torch.channels_last)
    assert seen["pyramid"].is_contiguous() and seen["student"].is_contiguous()


class Odd(nn.Module):
    """A backbone whose batch norm follows another convolution than the names say."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.norm = nn.BatchNorm2d(3)
        nn.init.uniform_(self.norm.weight, 2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.norm(self.first(x)))


@torch.no_grad()
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_a_form_with_other_results_is_left_out(monkeypatch, dtype):
    monkeypatch.setattr(auto_speed, "GAIN", 1e9)  # the fastest, by however little
    said: list[str] = []
    monkeypatch.setattr(auto_speed, "print_log", lambda text, **_: said.append(text))
    images = torch.rand(2, 3, 16, 16)
    with torch.autocast("cpu", dtype=dtype) if dtype else nullcontext():
        assert not choose([Odd().eval()], images).fuse_conv_bn
    left_out = said[0].partition("Left out: ")[2]
    for form in ("fuse_conv_bn", "fuse_conv_bn and channels_last"):
        assert f"{form} (other results)" in left_out


class Viewing(nn.Conv2d):
    """Flattens its kernels as DetectoRS's ``ConvAWS2d`` does, which fails in channels_last."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = self.weight.view(len(self.weight), -1).mean()
        return super().forward(x - mean)


@torch.no_grad()
def test_a_form_that_fails_is_left_out(monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(auto_speed, "print_log", lambda text, **_: said.append(text))
    assert not choose([Viewing(3, 3, 3).eval()], torch.rand(2, 3, 16, 16)).channels_last
    left_out = said[0].partition("Left out: ")[2]
    for form in ("channels_last", "fuse_conv_bn and channels_last"):
        assert f"{form} (RuntimeError: view size is not compatible" in left_out


@torch.no_grad()
def test_a_teacher_with_nan_stays_as_it_is():
    assert choose([Odd().eval()], torch.full((1, 3, 8, 8), torch.nan)) == Form()


@torch.no_grad()
def test_what_gains_too_little_is_not_kept(monkeypatch):
    monkeypatch.setattr(auto_speed, "GAIN", 0.0)
    assert choose([Odd().eval()], torch.rand(2, 3, 16, 16)) == Form()


def test_deterministic_mode_times_nothing(cfg, batch, monkeypatch):
    monkeypatch.setattr(auto_speed, "choose", None)  # fails where it is called
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    losses_and_gradients(model_with(cfg, auto=True), batch)
    (kept,) = MessageHub.get_current_instance().runtime_info.values()
    assert Form(**kept) == Form()


def test_a_resumed_run_goes_on_in_the_form_that_it_had(cfg, monkeypatch):
    forms = iter([Form(fuse_conv_bn=True)])  # asked for once
    monkeypatch.setattr(auto_speed, "choose", lambda *_: next(forms))
    cfg.model.speed = "auto"
    cfg.train_dataloader.dataset.indices = 4
    cfg.train_cfg.update(max_epochs=1, val_interval=9)
    runner(copy.deepcopy(cfg)).train()
    cfg.train_cfg.max_epochs = 2
    cfg.resume = True
    resumed = runner(copy.deepcopy(cfg))
    resumed.train()
    layers = resumed.model.teacher.backbone.modules()
    assert resumed.epoch == 2 and not any(isinstance(each, nn.BatchNorm2d) for each in layers)


def test_other_options_take_its_place():
    assert Speed.of("auto") == Speed.of(dict(auto=True)) == Speed(auto=True)
    assert Speed.of(dict(auto=True, channels_last=True)) == Speed(channels_last=True)
    assert Speed.of(dict(auto=True, channels_last=False)) == Speed(auto=True)
    with pytest.raises(ValueError, match=r"expected options out of .*'auto'.* found \['fast'\]"):
        Speed.of("fast")
