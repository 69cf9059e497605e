"""What hooks on distillation share: the algorithm, its losses, classes and data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import AmpOptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.runner import Runner
from mmengine.runner.amp import autocast
from torch import Tensor, nn

from kd_det.algorithms.checkpoint import weights_sha256
from kd_det.algorithms.embeddings import teacher_context
from kd_det.datasets.class_order import find_moved, simplify
from kd_det.errors import InvalidInputError

# What MMRazor's algorithms put before the names of the distiller's losses.
DISTILL_PREFIX = "distill."
# Number of classes in a message.
SHOWN = 6


def unwrap_model(runner: Runner) -> Any:
    """Return the runner's model, out of its wrapper for several processes."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def require_distillation(runner: Runner, who: str, names: Iterable[str] = ()) -> Any:
    """Return the runner's algorithm, out of its wrapper.

    Raises:
        ValueError: If it has no distiller with losses, or none of one of ``names``; ``who`` is
            the hook that asks.
    """
    model = unwrap_model(runner)
    if not hasattr(getattr(model, "distiller", None), "distill_losses"):
        raise InvalidInputError(
            f"{who} needs a distillation model, an MMRazor algorithm with a distiller; found "
            f"{type(model).__name__}"
        )
    known = sorted(model.distiller.distill_losses)
    for name in names:
        if name not in known:
            raise InvalidInputError(
                f"{who}: '{name}' is no distillation loss of this model, it has {known}"
            )
    return model


def scale_losses(losses: dict[str, Any], factors: Iterable[tuple[str, float | Tensor]]) -> None:
    """Multiply distillation losses by factors, in place; a factor's loss may be missing."""
    for name, factor in factors:
        loss = losses.get(key := DISTILL_PREFIX + name)
        if loss is not None:  # a tensor or, as MMEngine allows, a list of tensors
            scaled = loss * factor if isinstance(loss, Tensor) else [x * factor for x in loss]
            losses[key] = scaled


def check_teacher_classes(runner: Runner, model: Any) -> None:
    """Compare the classes in the teacher's checkpoint, where it names them, with the data's.

    Raises:
        ValueError: If a class has another place among the teacher's.
    """
    teacher = getattr(model, "teacher_classes", None)
    data = getattr(runner.train_dataloader.dataset, "metainfo", {}).get("classes")
    if not teacher or not data:
        return
    if moved := find_moved(teacher, data):
        raise InvalidInputError(
            "the teacher's classes are in another order than the training data's, so it would "
            f"teach wrong labels: {', '.join(moved[:SHOWN])}; expected {list(teacher)}, found "
            f"{list(data)}; give metainfo.classes of the datasets the teacher's order, and the "
            "categories of COCO files too, whose order mmdet takes for the labels"
        )
    if simplify(teacher) == simplify(data):
        return
    model.teacher_classes = None  # said once
    runner.logger.warning(
        f"the teacher was trained on classes of other names: {list(teacher)}, and the training "
        f"data has {list(data)}; what matters is that they mean the same in the same order"
    )


def teacher_preprocessor(model: Any) -> nn.Module:
    """Return the data preprocessor whose batches the teacher of an algorithm gets in training."""
    converted = getattr(model, "teacher_input", None)
    return model.data_preprocessor if converted is None else converted.preprocessor


def teacher_sha256(model: Any) -> str:
    """Return the digest of the weights of an algorithm's teacher as they were loaded."""
    if hasattr(model, "fixed_teacher"):
        return model.fixed_teacher.sha256
    return weights_sha256(model.teacher)


@contextmanager
def training_precision(runner: Runner, model: Any) -> Iterator[str]:
    """Run the teacher as in training: in its own precision, or in that of mixed precision.

    Yields:
        The type that matrix products have within, as ``'float32'``.
    """
    with _amp_context(runner), teacher_context(model):
        one = torch.ones(1, 1, device=next(model.teacher.parameters()).device)
        yield str((one @ one).dtype).replace("torch.", "")


def _amp_context(runner: Runner) -> AbstractContextManager[Any]:
    """The context of the training's forward passes; that of a runner that is not to train, too."""
    wrapper: Any = runner.optim_wrapper
    if isinstance(wrapper, Mapping) and "type" in wrapper:
        kind = wrapper["type"]
        kind = OPTIM_WRAPPERS.get(kind) if isinstance(kind, str) else kind
        if not (isinstance(kind, type) and issubclass(kind, AmpOptimWrapper)):
            return nullcontext()
        dtype = wrapper.get("dtype")
        return autocast(dtype=getattr(torch, dtype) if dtype else None)
    return autocast(dtype=wrapper.cast_dtype) if hasattr(wrapper, "cast_dtype") else nullcontext()


def require_alone(runner: Runner, hook: Hook) -> None:
    """Raise ``ValueError`` if the runner has another hook of this kind."""
    number = sum(type(each) is type(hook) for each in runner.hooks)
    if number > 1:
        name = type(hook).__name__
        raise InvalidInputError(
            f"expected one {name} in custom_hooks and default_hooks together, found {number}"
        )
