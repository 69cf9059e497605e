"""Gradients of losses at the neck, in a real training that is not changed by it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from mmengine.runner import Runner

from kd_det.hooks import GradientShareHook
from kd_det.hooks._gradient_norms import GradientNorms

NAMES = {"loss_review", "loss_nd", "loss_kd"}
SHARE = dict(type="kd_det.GradientShareHook", interval=2)
TWO_EPOCHS = {"train_cfg.max_epochs": 2}


def measured(run: Runner) -> dict[str, list[float]]:
    start = "train/gradient/"
    found = run.message_hub.log_scalars.items()
    return {k[len(start) :]: v.data[0].tolist() for k, v in found if k.startswith(start)}


def test_shares_are_those_of_losses_with_scales_and_weights(make: Callable[..., Runner]) -> None:
    """A balanced loss has the share that was asked for, and a weight on top of it counts."""
    hooks = (
        SHARE,
        dict(type="kd_det.LossBalanceHook", share=dict(loss_review=0.5, loss_kd=0.4), momentum=1.0),
        dict(type="kd_det.LossWeightHook", schedules=dict(loss_kd=dict(warmup=4, by_epoch=False))),
    )
    run = make("work", *hooks, **TWO_EPOCHS)
    run.train()
    found = measured(run)
    assert found.keys() == NAMES and all(len(values) == 4 for values in found.values())
    # Measured in iterations 0 and 2, and kept in between.
    assert found["loss_review"] == pytest.approx([0.5] * 4, rel=1e-4)
    weights = run.message_hub.get_scalar("train/weight/loss_kd").data[0]
    assert found["loss_kd"] == pytest.approx([0.4 * w for w in weights[[0, 0, 2, 2]]], rel=1e-3)
    assert found["loss_nd"][0] == found["loss_nd"][1] != found["loss_nd"][2]


def test_the_training_is_the_same_without_it(make: Callable[..., Runner]) -> None:
    run = make("with", SHARE)
    hooks = len(run.model._forward_hooks)
    run.train()
    assert len(run.model._forward_hooks) == hooks and measured(run)
    without = make("without")
    without.train()
    assert run.watch.losses == without.watch.losses
    state = without.model.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in run.model.state_dict().items())


def test_what_cannot_be_measured_stops_no_training(
    make: Callable[..., Runner], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def fail(*_: object) -> torch.Tensor:
        calls.append(1)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(GradientNorms, "measure", fail)
    finite = {"default_hooks.finite_loss": dict(type="kd_det.FiniteLossHook")}
    run = make("work", dict(SHARE, interval=1), **finite, **TWO_EPOCHS)
    run.train()
    assert run.iter == 4 and len(calls) == 1 and not measured(run)
    run = make("no_neck", dict(SHARE, source="nekc"))
    run.train()
    assert run.iter == 2 and not measured(run)
    with pytest.raises(ValueError, match="interval >= 1, found 0"):
        GradientShareHook(interval=0)
