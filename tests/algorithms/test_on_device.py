"""A training step on each device: dtypes, deterministic mode, and losses that do not wait."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest
import torch
from small import build, no_waits

from kd_det.centers import ClassCenters
from kd_det.connectors import ReviewFusion
from kd_det.losses import cwd_loss, dkd_loss, hcl_loss, nd_loss


@pytest.fixture
def model(cfg, device, request):
    cfg.model.speed = getattr(request, "param", {})
    torch.manual_seed(0)
    model = build(cfg.model)
    centers = ClassCenters(11, 128)
    centers.update(torch.rand(22, 128), torch.arange(22) % 11)
    model.distiller.distill_losses["loss_nd"].set_centers(centers)
    return model.to(device).train()


def gradients(model, batch, device, dtype=torch.float32) -> list[torch.Tensor]:
    """Gradients of the student, not scaled, of a step under autocast of ``dtype``."""
    torch.manual_seed(0)
    data = model.data_preprocessor(dict(batch), training=True)
    mixed = dtype != torch.float32
    with torch.autocast(device.type, dtype=dtype) if mixed else nullcontext():
        losses = model(**data, mode="loss")
    total, logged = model.parse_losses(losses)
    assert all(torch.isfinite(torch.as_tensor(value)).all() for value in logged.values())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    optimizer.zero_grad()
    scale = 2.0**7 if dtype == torch.float16 else 1.0  # what underflows without
    (total * scale).backward()
    found = [p.grad / scale for p in model.student.parameters() if p.grad is not None]
    assert all(p.grad is None for p in model.teacher.parameters())
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_step_has_finite_gradients(model, batch, device, dtype):
    if device.type == "cpu" and dtype == torch.float16:
        dtype = torch.bfloat16  # on a CPU, old torch has no autocast to float16
    found = gradients(model, batch, device, dtype)
    assert found and all(torch.isfinite(grad).all() for grad in found)
    assert any(grad.abs().max() > 0 for grad in found)


@pytest.mark.parametrize(
    "model",
    [
        dict(overlap_teacher=True),
        dict(channels_last=True, fuse_conv_bn=True),
        dict(compile_teacher=dict(backend="eager")),
        dict(auto=True),
    ],
    indirect=True,
    ids=lambda speed: next(iter(speed)),
)
def test_a_step_with_options_has_finite_gradients(model, batch, device):
    found = gradients(model, batch, device)
    assert found and all(torch.isfinite(grad).all() for grad in found)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def test_deterministic_mode_repeats_a_step_bit_for_bit(model, batch, device, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # which cuBLAS needs for it
    with deterministic():
        first, second = (gradients(model, batch, device) for _ in range(2))
    assert all(map(torch.equal, first, second))


def test_losses_and_connectors_do_not_wait_for_the_device(device):
    maps = [torch.randn(2, 8, n, n, device=device, requires_grad=True) for n in (16, 8, 4, 2, 1)]
    targets = [x.detach() + 1 for x in maps]
    rows = torch.randn(6, 16, device=device, requires_grad=True)
    logits = torch.randn(6, 5, device=device, requires_grad=True)
    centers, labels = torch.randn(5, 16, device=device), torch.arange(6, device=device) % 5
    fusion = ReviewFusion([8] * 5, [8] * 5, 8).to(device)
    for watched in (nullcontext(), no_waits(device)):
        with watched:  # only then, when kernels are loaded and memory is there
            losses = [
                hcl_loss(fusion(maps), targets),
                cwd_loss(maps, targets),
                nd_loss(rows, rows.detach() + 1, centers, labels).mean(),
                dkd_loss(logits, logits.detach() + 1, labels).mean(),
            ]
            torch.stack(losses).sum().backward()
    assert all(x.grad is not None for x in (*maps, rows, logits))


@pytest.mark.parametrize(
    "loss",
    [
        lambda maps, targets: hcl_loss(maps, targets),
        lambda maps, targets: cwd_loss(maps, targets, relative=True),
        lambda maps, targets: nd_loss(maps[0].flatten(1), *_rows(targets)).mean(),
        lambda maps, targets: dkd_loss(maps[0].flatten(1), *_rows(targets)[::2]).mean(),
    ],
    ids=["hcl", "cwd", "nd", "dkd"],
)
def test_a_compiled_loss_is_the_same(loss, device):
    maps = [torch.randn(2, 8, n, n, device=device, requires_grad=True) for n in (8, 4, 2)]
    targets = [torch.randn_like(x) for x in maps]
    found = []
    for call in (loss, torch.compile(loss, backend="aot_eager")):
        value = call(maps, targets)
        found.append((value, torch.autograd.grad(value, maps, allow_unused=True)))
    torch.testing.assert_close(*found)


def _rows(targets: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Teacher's rows, centers and labels of two samples."""
    rows = targets[0].flatten(1)
    return rows, rows + 1, torch.arange(2, device=rows.device)
