"""A loss that is inf or NaN stops the training before it reaches the weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.runner import Runner
from safetensors import safe_open
from small import digits_config, runner
from small_cls import CLS, build_classifier

from kd_det.hooks import NonFiniteLossError
from kd_det.recipes import load_named

FINITE = dict(type="kd_det.FiniteLossHook")


class Broken(torch.nn.Module):
    """A loss that is NaN in the given calls, counted from 0."""

    def __init__(self, loss: torch.nn.Module, calls: set[int]) -> None:
        super().__init__()
        self.loss, self.calls, self.call = loss, calls, 0

    def forward(self, **kwargs: torch.Tensor) -> torch.Tensor:
        value = self.loss(**kwargs)
        self.call += 1
        return value * float("nan") if self.call - 1 in self.calls else value


def run_of(work_dir: Path, hook: dict | None, broken: set[int], **options: object) -> Runner:
    """An epoch of seven iterations of KD on the digits, whose loss is NaN in some of them."""
    cfg = load_named(CLS / "digits" / "kd.py")
    object.__setattr__(cfg, "_format_python_code", False)
    work_dir.mkdir(exist_ok=True)
    torch.manual_seed(0)
    torch.save(build_classifier(cfg.model.teacher).state_dict(), work_dir / "teacher.pth")
    cfg.model.teacher_ckpt = str(work_dir / "teacher.pth")
    cfg.train_cfg.update(max_epochs=1, val_interval=9)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.serialize_data = False  # see digits_config
    cfg.work_dir = str(work_dir)
    cfg.custom_hooks = []
    cfg.default_hooks.pop("finite_loss")
    if hook is not None:
        cfg.default_hooks.finite_loss = hook
    cfg.merge_from_dict(options)
    run = runner(cfg)
    losses = run.model.distiller.distill_losses
    losses["loss_kd"] = Broken(losses["loss_kd"], broken)
    return run


def weights(run: Runner) -> dict[str, torch.Tensor]:
    return {k: v.detach().clone() for k, v in run.model.architecture.named_parameters()}


def test_training_stops_before_the_step_and_says_why(tmp_path):
    run = run_of(tmp_path, FINITE, {3})
    with pytest.raises(NonFiniteLossError) as raised:
        run.train()
    message = str(raised.value)
    assert "distill.loss_kd not finite in iteration 4 (images " in message
    assert "student weights" in message and "inputs" in message
    assert "student.loss" in message.split("other terms: ")[1]
    assert run.iter == 3
    assert all(value.isfinite().all() for value in weights(run).values())

    path = tmp_path / "nonfinite_iter_4_rank_0.safetensors"
    assert str(path) in message
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        assert metadata["why"] in message and len(json.loads(metadata["images"])) == 32
        assert file.get_tensor("inputs.0").shape == (3, 8, 8)
        assert file.get_tensor("gt_label.31").shape == (1,)


def test_skipping_leaves_out_these_steps_alone(tmp_path):
    hook = dict(FINITE, policy="skip", limit=2)
    run = run_of(tmp_path, hook, {1, 3})
    run.train()
    assert run.iter == 7
    assert all(value.isfinite().all() for value in weights(run).values())
    assert sorted(p.name for p in tmp_path.glob("nonfinite*")) == [
        "nonfinite_iter_2_rank_0.safetensors",
        "nonfinite_iter_4_rank_0.safetensors",
    ]
    state = torch.load(tmp_path / "epoch_1.pth", weights_only=True)
    assert state["kd_det_skipped"] == 2
    # Nothing of the hook stays.
    assert not run.model._forward_hooks
    assert not run.optim_wrapper.optimizer._optimizer_step_pre_hooks


def assert_no_weight_changes(run: Runner) -> None:
    """Train a model that is initialised already."""
    run._init_model_weights()
    run.model.init_weights = lambda: None
    before = {k: v.detach().clone() for k, v in run.model.named_parameters()}
    try:
        run.train()
    finally:
        assert all(torch.equal(before[key], v) for key, v in run.model.named_parameters())


OPTIMIZERS = {
    "momentum": dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=0.1),
    "adamw": dict(type="AdamW", lr=0.1, weight_decay=0.1),
}


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("momentum", {}),
        ("adamw", {"clip_grad": dict(max_norm=1)}),
        ("adamw", {"accumulative_counts": 2}),
    ],
)
def test_a_skipped_step_changes_no_weight(tmp_path, name, more):
    wrapper = dict(_delete_=True, type="OptimWrapper", optimizer=OPTIMIZERS[name], **more)
    hook = dict(FINITE, policy="skip", limit=7)
    run = run_of(tmp_path, hook, set(range(7)), optim_wrapper=wrapper)
    assert_no_weight_changes(run)


def test_moments_of_a_skipped_step_do_not_change(tmp_path):
    """What the optimizer keeps is that of the finite steps alone."""
    wrapper = dict(_delete_=True, type="OptimWrapper", optimizer=OPTIMIZERS["adamw"])
    run = run_of(tmp_path, dict(FINITE, policy="skip"), {5, 6}, optim_wrapper=wrapper)
    run.train()
    states = run.optim_wrapper.optimizer.state.values()
    assert states and all(int(state["step"]) == 5 for state in states)
    assert all(state["exp_avg"].isfinite().all() for state in states)


def test_a_constant_that_is_nan_changes_no_weight(tmp_path):
    """Its gradient is finite, and so are those of the other terms."""
    run = run_of(tmp_path, dict(FINITE, policy="skip", limit=7), set())
    constant = {"loss_constant": torch.tensor(float("nan"))}
    run.model.register_forward_hook(
        lambda model, inputs, losses: {**losses, **constant} if model.training else losses
    )
    assert_no_weight_changes(run)


@OPTIM_WRAPPERS.register_module()
class ScaledOptimWrapper(OptimWrapper):
    """MMEngine's AmpOptimWrapper without its autocast, which runs on GPUs alone."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.loss_scaler = torch.amp.GradScaler("cpu", init_scale=4.0)

    def backward(self, loss: torch.Tensor, **kwargs: object) -> None:
        self.loss_scaler.scale(loss).backward(**kwargs)
        self._inner_count += 1

    def step(self, **kwargs: object) -> None:
        self.loss_scaler.step(self.optimizer, **kwargs)
        self.loss_scaler.update()


@pytest.mark.skipif(
    not torch.cuda.is_available() and not hasattr(torch.amp, "GradScaler"),
    reason="before torch 2.3 gradients are scaled on GPUs alone",
)
def test_steps_that_the_scaler_of_mixed_precision_leaves_out_are_reported(tmp_path):
    """It takes no step where a gradient is not finite, so that no step can be guarded."""
    wrapper = dict(type="ScaledOptimWrapper")
    hook = dict(FINITE, policy="skip", limit=1)
    run = run_of(tmp_path, hook, {1, 3}, optim_wrapper=wrapper)
    with pytest.raises(NonFiniteLossError, match=r"not finite in iteration 4 .*stops after 1 step"):
        run.train()
    assert (tmp_path / "nonfinite_iter_2_rank_0.safetensors").is_file()
    assert all(value.isfinite().all() for value in weights(run).values())
    assert run.optim_wrapper.loss_scaler.get_scale() == 1.0  # halved twice


def test_optimizers_without_step_hooks_can_be_stopped_alone(tmp_path, monkeypatch):
    monkeypatch.delattr(torch.optim.Optimizer, "register_step_pre_hook")
    with pytest.raises(TypeError, match=r"needs optimizers .* found \['SGD'\]; use policy='stop'"):
        run_of(tmp_path, dict(FINITE, policy="skip"), set()).train()
    run = run_of(tmp_path, FINITE, {3})
    with pytest.raises(NonFiniteLossError, match="not finite in iteration 4 "):
        run.train()
    assert all(value.isfinite().all() for value in weights(run).values())


def test_a_batch_that_cannot_be_kept_hides_nothing(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    run = run_of(tmp_path, FINITE, {0})
    monkeypatch.setattr("kd_det.hooks.finite_loss_hook.write_atomically", full)
    with pytest.raises(NonFiniteLossError, match=r"iteration 1 .*could not be kept: no space left"):
        run.train()


def test_more_than_the_limit_stop_the_training(tmp_path):
    run = run_of(tmp_path, dict(FINITE, policy="skip", limit=2), {0, 2, 4, 6})
    with pytest.raises(NonFiniteLossError, match="stops after 2 steps that were left out"):
        run.train()
    assert run.iter == 4


def test_any_iteration_of_an_accumulated_step_counts(tmp_path):
    run = run_of(tmp_path, FINITE, {1}, **{"optim_wrapper.accumulative_counts": 3})
    with pytest.raises(NonFiniteLossError, match="not finite in iteration 2 "):
        run.train()
    assert run.iter == 2  # found with the third, before the step


def test_skipping_does_not_help_broken_statistics(tmp_path):
    run = run_of(tmp_path, dict(FINITE, policy="skip"), {0})
    run.model.architecture.backbone.bn1.running_mean.fill_(float("inf"))
    with pytest.raises(
        NonFiniteLossError, match=r"running statistics.*backbone\.bn1\.running_mean"
    ):
        run.train()


def test_finite_training_is_the_same_with_and_without(tmp_path):
    states = []
    for name, hook in (("with", FINITE), ("without", None)):
        run = run_of(tmp_path / name, hook, set())
        torch.manual_seed(1)
        run.train()
        states.append(weights(run))
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_a_plain_detector_is_protected_and_its_images_and_boxes_are_kept(digits, tmp_path):
    cfg = digits_config("plain", digits, tmp_path)
    cfg.train_dataloader.dataset.indices = 8
    run = runner(cfg)
    loss = run.model.roi_head.bbox_head.loss_cls.forward
    run.model.roi_head.bbox_head.loss_cls.forward = lambda *a, **k: loss(*a, **k) * float("inf")
    message = r"^loss_cls not finite in iteration 1 .*train/.*\.jpg"
    with pytest.raises(NonFiniteLossError, match=message):
        assert_no_weight_changes(run)
    with safe_open(tmp_path / "nonfinite_iter_1_rank_0.safetensors", framework="pt") as file:
        assert file.get_tensor("gt_bboxes.0").shape[1] == 4
        assert len(file.get_tensor("gt_labels.0")) == len(file.get_tensor("gt_bboxes.0"))
