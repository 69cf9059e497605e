"""Stops a training whose numbers are none any more, or leaves a bad batch out."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from kd_det.errors import InvalidInputError, UserError
from kd_det.files import write_atomically
from kd_det.hooks._distillation import require_alone, unwrapped
from kd_det.registry import HOOKS

POLICIES = ("stop", "skip")
SHOWN = 5


class NonFiniteLossError(UserError, RuntimeError):
    """A loss is inf or NaN."""


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Looks at the sum of all losses before the weights are changed by it.

    Where it is inf or NaN, the log says which terms are, in which iteration, for which images,
    with the norms of weights and inputs, and ``nonfinite_iter_<n>_rank_<r>.safetensors`` in the
    work directory keeps the batch: images, boxes, labels. The weights stay as they were, so the
    last checkpoint, and the ones to come, hold finite numbers.

    The answer is copied from a GPU while the backward pass is queued and read before the step, so
    that nothing should have to wait for it (not measured). With several processes it is reduced
    over all of them in each iteration.

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
        self._batch: Any = None
        self._since_step: list[_Iteration] = []  # several where gradients are accumulated

    def before_train(self, runner: Runner) -> None:
        """Look at losses where they are summed, and at the answer before each step."""
        require_alone(runner, self)
        model = unwrapped(runner)
        parse, take_step = model.parse_losses, runner.optim_wrapper.step
        self._since_step.clear()

        def parse_losses(losses: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
            total, terms = parse(losses)
            answer = _Answer(total.detach().isfinite().all())
            self._since_step.append(_Iteration(runner.iter + 1, self._batch, terms, answer))
            return total, terms

        def step(*args: Any, **kwargs: Any) -> None:
            since, self._since_step = self._since_step, []
            bad = [iteration for iteration in since if not iteration.finite.get()]
            if bad:
                self._handle(runner, bad[0])
            else:
                take_step(*args, **kwargs)

        model.parse_losses = parse_losses
        runner.optim_wrapper.step = step

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | tuple | list | None = None
    ) -> None:
        """Keep the batch in mind."""
        self._batch = data_batch

    def after_train(self, runner: Runner) -> None:
        """Leave model and optimizer as they were."""
        del unwrapped(runner).parse_losses
        del runner.optim_wrapper.step

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep how many steps were skipped."""
        checkpoint["kd_det_skipped"] = self.skipped

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Go on counting where a resumed run was."""
        if runner._resume:
            self.skipped = checkpoint.get("kd_det_skipped", 0)

    def _handle(self, runner: Runner, bad: _Iteration) -> None:
        name = f"nonfinite_iter_{bad.number}_rank_{get_rank()}.safetensors"
        text = _explain(unwrapped(runner), bad)
        path = _save_batch(Path(runner.work_dir) / name, bad.batch, text)
        text += f"; the batch lies in {path}"
        self.skipped += 1
        if self.policy == "skip" and self.skipped <= self.limit:
            self._require_finite_statistics(unwrapped(runner), text)
            runner.logger.warning(f"Step {self.skipped} of {self.limit} is left out: {text}")
            return
        more = f" after {self.limit} steps that were left out" if self.policy == "skip" else ""
        raise NonFiniteLossError(f"{text}. Training stops{more}; the weights are as they were")

    def _require_finite_statistics(self, model: nn.Module, text: str) -> None:
        """A forward pass with inf or NaN inside leaves them in running statistics."""
        bad = [
            name
            for name, value in model.named_buffers()
            if value.is_floating_point() and not value.isfinite().all()
        ]
        if bad:
            raise NonFiniteLossError(
                f"{text}. Training stops: leaving the step out would not help, since running "
                f"statistics are not finite either: {', '.join(bad[:SHOWN])}"
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
    norms.append(f"inputs {_norm(_tensors(bad.batch, 'inputs')):.4g}")
    others = [f"{name} {value:.4g}" for name, value in values.items() if name not in broken]
    return (
        f"{' and '.join(terms)} not finite in iteration {bad.number} (images "
        f"{', '.join(_images(bad.batch)) or 'unknown'}); norms: {', '.join(norms)}; other terms: "
        f"{', '.join(others) or 'none'}"
    )


@dataclass
class _Iteration:
    """What there is to say of an iteration if its losses are not finite."""

    number: int
    batch: Any
    terms: dict[str, Tensor]
    finite: _Answer


class _Answer:
    """A bool of the device, read later without waiting for what was asked of it since."""

    def __init__(self, value: Tensor) -> None:
        # Every rank must do the same: a step that one leaves out would hang the others.
        if torch.distributed.is_initialized():
            value = value.to(torch.int32)
            torch.distributed.all_reduce(value, op=torch.distributed.ReduceOp.MIN)
        self._event = None
        if value.is_cuda:
            self._value = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
            self._value.copy_(value, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()
        else:
            self._value = value

    def get(self) -> bool:
        if self._event is not None:
            self._event.synchronize()
        return bool(self._value)


def _norm(tensors: Iterable[Tensor]) -> float:
    norms = [torch.linalg.vector_norm(x.detach().double()) for x in tensors]
    return float(torch.linalg.vector_norm(torch.stack(norms))) if norms else 0.0


def _tensors(batch: Any, key: str) -> list[Tensor]:
    found = batch.get(key, []) if isinstance(batch, dict) else []
    return [found] if isinstance(found, Tensor) else list(found)


def _samples(batch: Any) -> list[Any]:
    return list(batch.get("data_samples") or []) if isinstance(batch, dict) else []


def _images(batch: Any) -> list[str]:
    names = (sample.metainfo for sample in _samples(batch))
    return [str(meta.get("img_path") or meta.get("img_id", "?")) for meta in names]


def _save_batch(path: Path, batch: Any, text: str) -> Path:
    """Images, boxes and labels of a batch, with what is wrong with it as metadata."""
    from safetensors.torch import save

    tensors = {f"inputs.{i}": x for i, x in enumerate(_tensors(batch, "inputs"))}
    for i, sample in enumerate(_samples(batch)):
        objects = getattr(sample, "gt_instances", None)
        for name in ("bboxes", "labels"):
            value = getattr(objects, name, None)
            value = getattr(value, "tensor", value)
            if isinstance(value, Tensor):
                tensors[f"gt_{name}.{i}"] = value
        if isinstance(getattr(sample, "gt_label", None), Tensor):
            tensors[f"gt_label.{i}"] = sample.gt_label
    data = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    metadata = {"why": text, "images": json.dumps(_images(batch))}
    write_atomically(path, save(data, metadata=metadata))
    return path
