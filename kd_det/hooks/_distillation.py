"""What hooks on distillation losses share: where the losses are, and how to scale one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from kd_det.errors import InvalidInputError

# What MMRazor's algorithms put before the names of the distiller's losses.
DISTILL_PREFIX = "distill."


def unwrapped(runner: Runner) -> Any:
    """The runner's model, out of its wrapper for several processes."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def distillation_model(runner: Runner, who: str) -> Any:
    """The runner's algorithm, out of its wrapper.

    Raises:
        ValueError: If it has no distiller with losses; ``who`` is the hook that asks.
    """
    model = unwrapped(runner)
    if not hasattr(getattr(model, "distiller", None), "distill_losses"):
        raise InvalidInputError(
            f"{who} needs a distillation model, an MMRazor algorithm with a distiller; found "
            f"{type(model).__name__}"
        )
    return model


def check_names(names: Iterable[str], model: Any, who: str) -> None:
    """Raise ``ValueError`` if one of ``names`` is no distillation loss of ``model``."""
    known = sorted(model.distiller.distill_losses)
    for name in names:
        if name not in known:
            raise InvalidInputError(
                f"{who}: '{name}' is no distillation loss of this model, it has {known}"
            )


def scaled(loss: Any, factor: float | Tensor) -> Any:
    """A loss times ``factor``; a loss is a tensor or, as for MMEngine, a list of tensors."""
    return loss * factor if isinstance(loss, Tensor) else [each * factor for each in loss]


def total(loss: Any) -> Tensor:
    """The number that MMEngine's ``parse_losses`` makes of a loss."""
    return loss.mean() if isinstance(loss, Tensor) else sum(each.mean() for each in loss)


def same_names(theirs: Sequence[str], ours: Sequence[str]) -> bool:
    """Whether the teacher's classes have the names of the data's, but for case and blanks.

    Raises:
        ValueError: If they are the same in another order.
    """
    teacher, data = ([_plain(name) for name in names] for names in (theirs, ours))
    if teacher != data and sorted(teacher) == sorted(data):
        raise InvalidInputError(
            f"the teacher's classes are in another order than the training data's: expected "
            f"{list(theirs)}, found {list(ours)}; give metainfo.classes of the datasets the "
            "teacher's order, and the categories of COCO files too, whose order mmdet takes for "
            "the labels"
        )
    return teacher == data


def _plain(name: str) -> str:
    return " ".join(str(name).casefold().split())


def input_of_training(model: Any) -> nn.Module:
    """The data preprocessor whose batches the teacher of an algorithm gets in training."""
    converted = getattr(model, "teacher_input", None)
    return model.data_preprocessor if converted is None else converted.preprocessor


def check_teacher_classes(runner: Runner, model: Any) -> None:
    """Compare the classes in the teacher's checkpoint, where it names them, with the data's.

    Raises:
        ValueError: If they are the same in another order.
    """
    theirs = getattr(model, "teacher_classes", None)
    ours = getattr(runner.train_dataloader.dataset, "metainfo", {}).get("classes")
    if not theirs or not ours or same_names(theirs, ours):
        return
    model.teacher_classes = None  # said once
    runner.logger.warning(
        f"the teacher was trained on classes of other names: {list(theirs)}, and the training data "
        f"has {list(ours)}; what matters is that they mean the same in the same order"
    )


def require_alone(runner: Runner, hook: Hook) -> None:
    """Raise ``ValueError`` if the runner has another hook of this kind."""
    number = sum(type(each) is type(hook) for each in runner.hooks)
    if number > 1:
        name = type(hook).__name__
        raise InvalidInputError(
            f"expected one {name} in custom_hooks and default_hooks together, found {number}"
        )
