"""A training whose loss is NaN or infinite stops, or leaves that step out."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.dist import all_reduce, get_rank
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import Tensor, nn

from kd_det.errors import InvalidInputError, UnsupportedTypeError, UserError
from kd_det.files import write_atomically
from kd_det.hooks._distillation import require_alone, unwrap_model
from kd_det.hooks._loss_transforms import Stage, transform_losses
from kd_det.registry import HOOKS

POLICIES = ("stop", "skip")
SHOWN = 5


class NonFiniteLossError(UserError, RuntimeError):
    """A loss is NaN or infinite."""


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Leave out every step whose sum of losses is NaN or infinite.

    The weights stay as they were, so that all checkpoints hold finite numbers. The log names the
    terms that are not finite, iteration and images, with the norms of weights and inputs;
    ``nonfinite_iter_<n>_rank_<r>.safetensors`` in the work directory keeps the batch.

    For any model of MMEngine's, with accumulated gradients, mixed precision and several processes.
    The losses are checked after all other hooks' changes, on all ranks together; a pre-hook of the
    optimizer's step removes all gradients if they are not finite; after the iteration it is
    reported. The answer is copied from a GPU while the backward pass is queued, and read before
    the step.

    Args:
        policy: ``'stop'`` ends the training; ``'skip'`` goes on without this step.
        limit: How many steps may be skipped in a training before it is stopped after all.

    Raises:
        NonFiniteLossError: In the iteration of such a loss, by ``policy``; on all ranks.
        ValueError: For another ``policy`` or a negative ``limit``.
    """

    priority = "VERY_LOW"

    def __init__(self, policy: str = "stop", limit: int = 10) -> None:
        if policy not in POLICIES or limit < 0:
            raise InvalidInputError(
                f"FiniteLossHook: expected policy to be one of {POLICIES} and limit >= 0, found "
                f"{policy!r} and {limit}"
            )
        self.policy = policy
        self.limit = limit
        self.skipped = 0
        self._batch: dict[str, Any] = {}
        self._since_step: list[_Iteration] = []  # several where gradients are accumulated
        self._handles: list[Any] = []

    def before_train(self, runner: Runner) -> None:
        """Check the losses that the model returns, and guard the optimizer's steps."""
        require_alone(runner, self)
        model = unwrap_model(runner)
        optimizers = [wrapper.optimizer for wrapper in _wrappers(runner)]
        can_skip = all(hasattr(each, "register_step_pre_hook") for each in optimizers)
        if self.policy == "skip" and not can_skip:
            raise UnsupportedTypeError(
                "FiniteLossHook(policy='skip') needs optimizers that have register_step_pre_hook, "
                f"as torch's have; found {[type(each).__name__ for each in optimizers]}; use "
                "policy='stop'"
            )
        self.after_train(runner)
        self._since_step.clear()

        def check(losses: dict[str, Any]) -> dict[str, Any]:
            with torch.no_grad():
                total, terms = model.parse_losses(losses)
                answer = _Answer(total.isfinite().all())
            self._since_step.append(_Iteration(runner.iter + 1, self._batch, terms, answer))
            if not can_skip and not answer.get():
                self._report(runner, self._since_step.pop())
            return losses

        def guard(optimizer: torch.optim.Optimizer, args: tuple, kwargs: dict[str, Any]) -> None:
            if any(not iteration.finite.get() for iteration in self._since_step):
                # An optimizer ignores parameters without a gradient: neither weights nor
                # moments nor weight decay change.
                optimizer.zero_grad(set_to_none=True)

        self._handles.append(transform_losses(model, Stage.CHECK, check))
        if can_skip:
            self._handles += [each.register_step_pre_hook(guard) for each in optimizers]

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Keep the batch for a report."""
        self._batch = data_batch if isinstance(data_batch, dict) else {}

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Report a step that was left out, and stop where the policy says so."""
        # Otherwise gradients are accumulated, for the step of a later iteration.
        if not all(wrapper.should_update() for wrapper in _wrappers(runner)):
            return
        since, self._since_step = self._since_step, []
        bad = [iteration for iteration in since if not iteration.finite.get()]
        if bad:
            self._report(runner, bad[0])

    def after_train(self, runner: Runner) -> None:
        """Leave model and optimizer without hooks."""
        while self._handles:
            self._handles.pop().remove()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Save how many steps were skipped."""
        checkpoint["kd_det_skipped"] = self.skipped

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Go on counting where a resumed run was."""
        if runner._resume:
            self.skipped = checkpoint.get("kd_det_skipped", 0)

    def _report(self, runner: Runner, bad: _Iteration) -> None:
        """Log or raise; all ranks come here in the same iteration."""
        model = unwrap_model(runner)
        text = _explain(model, bad)
        name = f"nonfinite_iter_{bad.number}_rank_{get_rank()}.safetensors"
        text += f"; {_save_batch(Path(runner.work_dir) / name, bad.batch, text)}"
        self.skipped += 1
        if self.policy == "skip" and self.skipped <= self.limit:
            _require_finite_statistics(model, text)
            runner.logger.warning(f"Step {self.skipped} of {self.limit} is left out: {text}")
            return
        more = f" after {self.limit} steps that were left out" if self.policy == "skip" else ""
        raise NonFiniteLossError(f"{text}. Training stops{more}; the weights are as they were")


class _Iteration(NamedTuple):
    """An iteration to report if its losses are not finite."""

    number: int
    batch: dict[str, Any]
    terms: dict[str, Tensor]
    finite: _Answer


class _Answer:
    """A bool of all ranks, read later without waiting for what the device was asked since."""

    def __init__(self, value: Tensor) -> None:
        # Every rank must do the same: a step that one leaves out would hang the others.
        value = value.to(torch.int32)
        all_reduce(value, "min")
        self._value, self._event = value, None
        if value.is_cuda:
            self._value = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
            self._value.copy_(value, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def get(self) -> bool:
        if self._event is not None:
            self._event.synchronize()
        return bool(self._value)


def _wrappers(runner: Runner) -> list[OptimWrapper]:
    found = runner.optim_wrapper
    return list(found.values()) if isinstance(found, OptimWrapperDict) else [found]


def _require_finite_statistics(model: nn.Module, text: str) -> None:
    """Raise if the forward pass left NaN or infinite values in running statistics.

    Each rank has its own, and a rank that stopped alone would leave the others waiting: all of
    them stop if one has to.
    """
    bad = [
        name
        for name, value in model.named_buffers()
        if value.is_floating_point() and not value.isfinite().all()
    ]
    number = torch.tensor(len(bad), device=next(model.parameters()).device)
    all_reduce(number, "max")
    if number:
        raise NonFiniteLossError(
            f"{text}. Training stops: leaving the step out would not help, since running "
            f"statistics are not finite either: {', '.join(bad[:SHOWN]) or 'those of another rank'}"
        )


def _explain(model: Any, bad: _Iteration) -> str:
    values = {name: float(value.mean()) for name, value in bad.terms.items()}
    broken = [name for name, value in values.items() if not math.isfinite(value)]
    terms = [name for name in broken if name != "loss"] or broken or ["a loss of another rank"]
    parts = {
        "student": getattr(model, "architecture", model),
        "connectors": getattr(getattr(model, "distiller", None), "connectors", None),
    }
    norms = [f"{name} weights {_norm(m.parameters()):.4g}" for name, m in parts.items() if m]
    norms.append(f"inputs {_norm(_images(bad.batch)):.4g}")
    others = [f"{name} {value:.4g}" for name, value in values.items() if name not in broken]
    return (
        f"{' and '.join(terms)} not finite in iteration {bad.number} (images "
        f"{', '.join(_names(bad.batch)) or 'unknown'}); norms: {', '.join(norms)}; other terms: "
        f"{', '.join(others) or 'none'}"
    )


def _norm(tensors: Iterable[Tensor]) -> float:
    norms = [torch.linalg.vector_norm(x.detach().cpu().double()) for x in tensors]
    return float(torch.linalg.vector_norm(torch.stack(norms))) if norms else 0.0


def _images(batch: dict[str, Any]) -> list[Tensor]:
    found = batch.get("inputs", [])
    return [found] if isinstance(found, Tensor) else list(found)


def _names(batch: dict[str, Any]) -> list[str]:
    metas = (sample.metainfo for sample in batch.get("data_samples") or [])
    return [str(meta.get("img_path") or meta.get("img_id", "?")) for meta in metas]


def _save_batch(path: Path, batch: dict[str, Any], text: str) -> str:
    """Save images, boxes and labels of a batch, with the report as metadata.

    Returns:
        Where it lies, or why it does not: a full disk must neither hide what is reported nor
        end one rank alone.
    """
    from safetensors.torch import save

    tensors: dict[str, Any] = {f"inputs.{i}": x for i, x in enumerate(_images(batch))}
    for i, sample in enumerate(batch.get("data_samples") or []):
        objects = getattr(sample, "gt_instances", None)
        for name in ("bboxes", "labels"):
            value = getattr(objects, name, None)
            tensors[f"gt_{name}.{i}"] = getattr(value, "tensor", value)
        tensors[f"gt_label.{i}"] = getattr(sample, "gt_label", None)
    data = {name: value.detach().cpu().contiguous() for name, value in tensors.items()
            if isinstance(value, Tensor)}  # fmt: skip
    try:
        metadata = {"why": text, "images": json.dumps(_names(batch))}
        write_atomically(path, save(data, metadata=metadata))
    except OSError as error:
        return f"the batch could not be kept: {error}"
    return f"the batch lies in {path}"
