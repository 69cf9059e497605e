"""Balanced losses: the arithmetic, what is measured, and a real training with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from kd_det import LossBalanceHook

# In a real run


def balanced(share: object, **options: object) -> dict:
    return dict(type="kd_det.LossBalanceHook", share=share, **options)


def balancer(run: Runner) -> LossBalanceHook:
    (hook,) = (hook for hook in run.hooks if isinstance(hook, LossBalanceHook))
    return hook


def scalars(run: Runner, name: str) -> list[float]:
    return run.message_hub.get_scalar(f"train/{name}").data[0].tolist()


def test_each_term_has_its_share_of_the_gradient(make):
    shares = dict(loss_review=0.5, loss_kd=0.125)
    run = make("work", balanced(shares, momentum=1.0))
    hooks = len(run.model._forward_hooks)
    seen = []

    def measure(model: nn.Module, inputs: object, losses: dict) -> None:
        # After the balance: what it hands on has the shares that were asked for.
        if not isinstance(losses, dict):
            return
        task = sum(
            v if isinstance(v, Tensor) else sum(v)
            for k, v in losses.items()
            if k.startswith("student.loss")
        )
        feats = neck.pop()
        seen.append(
            {
                name: norm(losses[f"distill.{name}"], feats) / norm(task, feats)
                for name in ("loss_review", "loss_kd", "loss_nd")
            }
        )

    def norm(loss: Tensor, feats: tuple[Tensor, ...]) -> float:
        grads = torch.autograd.grad(loss, feats, retain_graph=True, allow_unused=True)
        return torch.cat([g.flatten() for g in grads if g is not None]).norm().item()

    neck: list = []
    run.model.student.neck.register_forward_hook(lambda m, i, feats: neck.append(feats))

    class Measure(Hook):
        priority = "VERY_LOW"

        def before_train(self, runner: Runner) -> None:
            self.handle = runner.model.register_forward_hook(measure)

        def after_train(self, runner: Runner) -> None:
            self.handle.remove()

    run.register_hook(Measure())
    run.train()
    assert len(seen) == 2
    for step in seen:
        assert step["loss_review"] == pytest.approx(0.5, rel=1e-4)
        assert step["loss_kd"] == pytest.approx(0.125, rel=1e-4)
        assert step["loss_nd"] not in (0, pytest.approx(0.5), pytest.approx(0.125))
    # What is logged: the scale, and the share that was found without it.
    for name, share in shares.items():
        found = [
            a * b for a, b in zip(scalars(run, f"scale/{name}"), scalars(run, f"share/{name}"))
        ]
        assert found == pytest.approx([share] * 2, rel=1e-4)
    (log,) = Path(run.work_dir).glob("*/vis_data/scalars.json")
    assert '"scale/loss_review"' in log.read_text() and '"share/loss_kd"' in log.read_text()
    with pytest.raises(KeyError):
        scalars(run, "scale/loss_nd")
    # Nothing stays behind.
    assert len(run.model._forward_hooks) == hooks
    assert not any(loss._forward_hooks for loss in run.model.distiller.distill_losses.values())


def test_measuring_changes_no_gradient(make):
    def train(run: Runner) -> dict[str, Tensor]:
        gradients = {}

        class Keep(Hook):
            def before_train(self, runner: Runner) -> None:
                runner.optim_wrapper.optimizer.register_step_pre_hook(self.keep)

            def keep(self, *_: object) -> None:
                for name, p in run.model.named_parameters():
                    if p.grad is not None:
                        gradients[name] = p.grad.clone()

        run.register_hook(Keep())
        run.train()
        return gradients

    few = {"train_dataloader.dataset.indices": 4}
    run = make("balanced", balanced(0.3), **few)
    with_hook = train(run)
    scales = balancer(run).balance.scales
    assert (scales != 1).all()

    plain = make("plain", **few)
    for name, scale in zip(balancer(run).balance.names, scales):
        loss = plain.model.distiller.distill_losses[name]
        loss.register_forward_hook(lambda module, inputs, loss, scale=scale: loss * scale)
    without = train(plain)

    assert with_hook.keys() == without.keys() and len(without) > 100
    assert all(torch.equal(with_hook[name], without[name]) for name in without)
    assert run.watch.losses == plain.watch.losses


def test_measures_at_first_and_then_at_intervals(make, monkeypatch):
    monkeypatch.setattr("kd_det.hooks.loss_balance_hook.FIRST_ITERATIONS", 2)
    run = make("work", balanced(0.3, interval=4), **{"train_cfg.max_epochs": 4})
    run.train()
    found = scalars(run, "share/loss_review")
    changed = [i for i in range(8) if i == 0 or found[i] != found[i - 1]]
    assert changed == [0, 1, 4]


def test_resumed_run_equals_one_that_was_not_stopped(make, train_until, monkeypatch):
    monkeypatch.setattr("kd_det.hooks.loss_balance_hook.FIRST_ITERATIONS", 2)
    # Measured in iterations 0, 1 and 5, stopped after 4: nothing is measured on resuming.
    hook = balanced(0.3, interval=5)
    epochs = {"train_cfg.max_epochs": 3}
    whole = make("whole", hook, **epochs)
    whole.train()
    killed = make("killed", hook, **epochs)
    train_until(killed, 4)
    resumed = make("killed", hook, resume=True, **epochs)
    resumed.train()
    assert resumed.iter == 6 and len(resumed.watch.losses) == 2
    assert resumed.watch.losses == whole.watch.losses[4:]
    assert scalars(resumed, "scale/loss_review") == scalars(whole, "scale/loss_review")
    state = whole.model.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in resumed.model.state_dict().items())


def test_checkpoint_that_is_only_loaded_does_not_set_scales(make):
    few = {"train_dataloader.dataset.indices": 4}
    first = make("first", balanced(0.3), **few)
    first.train()
    file = str(Path(first.work_dir) / "epoch_1.pth")
    second = make("second", balanced(dict(loss_kd=0.1)), load_from=file, **few)
    second.train()
    assert balancer(second).balance.names == ["loss_kd"]
    assert balancer(second).balance._weights[0] == pytest.approx(0.3)


def test_names_that_do_not_exist_are_errors(make):
    run = make("work")
    assert run.train_loop.iter == 0  # builds it: the hook asks for the iteration
    with pytest.raises(ValueError, match=r"'loss_dk' is no distillation loss.*'loss_kd'"):
        LossBalanceHook(share=dict(loss_dk=0.1)).before_train(run)
    with pytest.raises(
        ValueError, match=r"'nekc', but the student .* no such module; .*backbone, .*neck"
    ):
        LossBalanceHook(share=0.1, source="nekc").before_train(run)
    run.register_hook(LossBalanceHook(share=0.1))
    run.register_hook(LossBalanceHook(share=0.1))
    with pytest.raises(ValueError, match="one LossBalanceHook"):
        run.call_hook("before_train")


def test_steps_without_rois_leave_scales_as_they_are(make):
    run = make("work", balanced(0.3), **{"train_cfg.max_epochs": 2})

    class SampleNone(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
            runner.model.student.roi_head.bbox_sampler.num = 0 if runner.iter in (1, 2) else 64

    run.register_hook(SampleNone())
    run.train()
    kd, review = scalars(run, "scale/loss_kd"), scalars(run, "scale/loss_review")
    assert kd[0] == kd[1] == kd[2] != kd[3]
    losses = [step["distill.loss_kd"] for step in run.watch.losses]
    assert losses[1] == losses[2] == 0 and losses[0] * losses[3] > 0
    assert len(set(review)) == 4
    assert all(np.isfinite(list(step.values())).all() for step in run.watch.losses)
