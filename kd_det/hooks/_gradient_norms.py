"""Norms of the gradients that losses send into a student's features."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from kd_det.algorithms.wiring import require_module
from kd_det.errors import InvalidInputError
from kd_det.hooks._distillation import DISTILL_PREFIX


class GradientNorms:
    """Measures, in the middle of a step, how strongly each loss pulls at the features.

    Where ``recording`` is set, it keeps the features.

    Args:
        model: An MMRazor algorithm with a student.
        names: The distillation losses to measure.
        source: The module of the student whose outputs are the features.

    Raises:
        kd_det.algorithms.WiringError: If the student has no such module.
    """

    def __init__(self, model: Any, names: Iterable[str], source: str) -> None:
        self.recording = False
        self._source = source
        self._features: list[Tensor] = []
        self._names = list(names)
        self._told: set[str] = set()
        require_module(model.student, source, "student", "the shared features are outputs of")
        features_of = model.student.get_submodule(source)
        self._handle = features_of.register_forward_hook(self._keep_features)

    def remove(self) -> None:
        """Take the hook off the model."""
        self._handle.remove()

    def measure(self, losses: Mapping[str, Any], loss_scale: float = 1.0) -> Tensor:
        """Compute norms over all features together, ``[1 + n]``: of the task, then of each term.

        The graph stays as it is, and no gradient of a parameter is touched. The features are
        forgotten. A term that is not among the losses of this step has norm 0.

        Args:
            losses: What the algorithm's forward pass returns, before scales and weights. The
                task's are those that MMEngine sums up and that are no distillation loss.
            loss_scale: That of mixed precision. Without it, gradients in half precision vanish.

        Raises:
            ValueError: If the features have no gradient of the task losses.
        """
        features = [feature for feature in self._features if feature.requires_grad]
        self._features = []
        task = [
            _total(loss)
            for name, loss in losses.items()
            if "loss" in name and not name.startswith(DISTILL_PREFIX)
        ]
        terms = [losses.get(DISTILL_PREFIX + name) for name in self._names]
        device = _tensors(losses)[0].device
        # As in the step's own backward pass, which does not run in autocast.
        with torch.autocast(device.type, enabled=False):
            norm = _norm(torch.stack(task).sum() if task else None, features, loss_scale)
            if norm is None:
                raise InvalidInputError(
                    f"no task loss of {sorted(losses)} has a gradient at the outputs of the "
                    f"student's module '{self._source}'; name one that learns from them"
                )
            norms = [norm]
            for name, term in zip(self._names, terms):
                norm = None if term is None else _norm(_total(term), features, loss_scale)
                if norm is None and term is not None:
                    self._warn(name)
                norms.append(torch.zeros_like(norms[0]) if norm is None else norm)
        return torch.stack(norms)

    def _keep_features(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        if self.recording:
            self._features += _tensors(outputs)

    def _warn(self, name: str) -> None:
        if name in self._told:
            return
        self._told.add(name)
        print_log(
            f"Distillation loss '{name}' has no gradient at the outputs of the student's module "
            f"'{self._source}', so it cannot be measured or balanced there",
            logger="current",
            level=30,
        )


def loss_scale(runner: Runner) -> float:
    """Loss scale of mixed precision, 1 without it."""
    scaler = getattr(runner.optim_wrapper, "loss_scaler", None)
    return scaler.get_scale() if scaler is not None else 1.0


def _total(loss: Any) -> Tensor:
    """Reduce a loss as MMEngine's ``parse_losses`` does."""
    return loss.mean() if isinstance(loss, Tensor) else sum(each.mean() for each in loss)


def _norm(loss: Tensor | None, features: list[Tensor], loss_scale: float) -> Tensor | None:
    """Float32 norm of a loss's gradients at ``features``, None where there are none."""
    if loss is None or not loss.requires_grad or not features:
        return None
    scale = torch.full_like(loss, loss_scale)
    gradients = torch.autograd.grad(loss, features, scale, retain_graph=True, allow_unused=True)
    norms = [torch.linalg.vector_norm(g, dtype=torch.float32) for g in gradients if g is not None]
    return torch.linalg.vector_norm(torch.stack(norms)) / loss_scale if norms else None


def _tensors(nested: Any) -> list[Tensor]:
    return [value for value in tree_flatten(nested)[0] if isinstance(value, Tensor)]
