"""Evaluation of the teacher before a student learns from it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.runner.amp import autocast
from mmengine.structures import BaseDataElement

from kd_det.centers import find_misfit
from kd_det.errors import InvalidInputError, UserError
from kd_det.evaluation import fitting_evaluator
from kd_det.files import write_atomically
from kd_det.hooks._distillation import (
    check_teacher_classes,
    require_alone,
    teacher_preprocessor,
    teacher_sha256,
    training_precision,
    unwrap_model,
)
from kd_det.hooks._origin import digest, digest_dataset
from kd_det.hooks._seeded_data import copy_loader, seeded_by_rank
from kd_det.progress import progress
from kd_det.registry import HOOKS

FILE_NAME = "teacher_metrics.json"
NUMBERS = (Real, torch.Tensor)  # NumPy's are Real; COCO's metrics have a line of text among them


class TeacherAccuracyError(UserError, RuntimeError):
    """The teacher is worse than the run asks for."""


@HOOKS.register_module()
class TeacherAccuracyHook(Hook):
    """Evaluate the teacher once, before the first iteration, and stop if it is too bad.

    Wrong weights, classes in another order or another normalisation leave a teacher that runs
    without an error and teaches nonsense. It is evaluated with the run's own validation data and
    evaluator (without metrics of masks, if it predicts none), on the input that it gets in
    training and in the precision of training (mixed precision, ``model.speed``). The result is
    logged as scalars ``teacher/<metric>`` and written to ``teacher_metrics.json`` in the work
    directory, which the next run uses if it is of the same teacher, input, precision and
    validation data; a resumed run does not ask again. The state of the RNG is restored.

    MMRazor's ``SingleTeacherDistillValLoop`` evaluates the teacher after every epoch, though it
    never changes; with this hook a plain ``ValLoop`` is enough.

    Args:
        floor: What ``metric`` must reach; None only reports, with a warning where it is 0.
        metric: Its name among the evaluator's results.

    Raises:
        TeacherAccuracyError: Before the first iteration, if ``metric`` is below ``floor``.
        ValueError: Then, if there is no teacher, no validation or no such metric.
    """

    priority = "ABOVE_NORMAL"  # a pre-pass of a bad teacher would be in vain

    def __init__(self, floor: float | None = None, metric: str = "coco/bbox_mAP") -> None:
        self.floor = floor
        self.metric = metric

    def before_train(self, runner: Runner) -> None:
        """Evaluate the teacher or find its metrics, report them, and compare with the floor."""
        if runner.iter > 0:
            return
        model = unwrap_model(runner)
        if not hasattr(model, "teacher"):
            raise InvalidInputError(
                "TeacherAccuracyHook needs a distillation model with a teacher, found "
                f"{type(model).__name__}"
            )
        if runner.val_loop is None:
            raise InvalidInputError(
                "TeacherAccuracyHook evaluates with the run's val_dataloader, val_evaluator and "
                "val_cfg, and this run has none"
            )
        require_alone(runner, self)
        check_teacher_classes(runner, model)
        metrics = self._metrics(runner, model)
        _report(runner, metrics)
        if self.floor is not None:
            self._require(self.floor, metrics, runner)
        elif not metrics or metrics.get(self.metric) == 0:
            runner.logger.warning(
                "the teacher finds nothing on the validation data, so there is little to learn "
                f"from it. {_likely_causes(runner)}"
            )

    def _metrics(self, runner: Runner, model: Any) -> dict[str, float]:
        path = Path(runner.work_dir) / FILE_NAME
        # Machines may not share the work directory: the first process decides for all.
        origin = _origin(runner, model) if is_main_process() else {}
        found = [_read(path, origin, runner) if is_main_process() else None]
        broadcast_object_list(found)
        if found[0] is not None:
            return found[0]
        metrics = _evaluate(runner, model)
        if is_main_process():
            text = json.dumps({**origin, "metrics": metrics}, indent=2) + "\n"
            write_atomically(path, text.encode())
        return metrics

    def _require(self, floor: float, metrics: dict[str, float], runner: Runner) -> None:
        if metrics and self.metric not in metrics:
            raise InvalidInputError(
                f"TeacherAccuracyHook: there is no '{self.metric}' among the teacher's metrics "
                f"{sorted(metrics)}"
            )
        if metrics and metrics[self.metric] >= floor:
            return
        # Nothing that was detected can be evaluated, and CocoMetric returns nothing.
        measured = f"{metrics[self.metric]:.4f}" if metrics else "nothing, as it detects nothing"
        raise TeacherAccuracyError(
            f"the teacher was evaluated before training: expected {self.metric} >= {floor}, found "
            f"{measured}. {_likely_causes(runner)} If the teacher is meant to be like that, lower "
            "the hook's floor; floor=None only reports."
        )


def _likely_causes(runner: Runner) -> str:
    checkpoint = (runner.cfg.get("model") or {}).get("teacher_ckpt")
    return (
        f"Likely causes: wrong weights (teacher_ckpt is {checkpoint}); classes in another order "
        "than those it was trained on; other preprocessing than it was trained with (mean, std, "
        "channel order, image size)."
    )


def _origin(runner: Runner, model: Any) -> dict[str, Any]:
    """Return all that the teacher's metrics depend on."""
    loop, teacher = runner.val_loop, model.teacher
    dataset = loop.dataloader.dataset
    with _precision(runner, model) as dtype:
        pass
    return {
        "teacher_sha256": teacher_sha256(model),
        "dtype": dtype,
        "input_sha256": digest(teacher_preprocessor(model), getattr(teacher, "test_cfg", None)),
        "dataset_sha256": digest_dataset(dataset),
        "evaluator_sha256": digest(loop.evaluator.metrics),
        "images": len(dataset),
    }


def _read(path: Path, origin: dict[str, Any], runner: Runner) -> dict[str, float] | None:
    """Read the metrics of an earlier run, None unless they are of ``origin``."""
    if not path.exists():
        return None
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        metrics = dict(kept["metrics"])
        misfit = find_misfit(origin, kept)
    except (ValueError, KeyError, TypeError) as error:
        misfit = f"expected a file of metrics, found {error!r}"
    if misfit is not None:
        runner.logger.warning(
            f"The teacher is evaluated again, since {path} is of another run: {misfit}"
        )
        return None
    runner.logger.info(f"Teacher's metrics of an earlier run read from {path}")
    return metrics


@torch.no_grad()
def _evaluate(runner: Runner, model: Any) -> dict[str, float]:
    """Compute all metrics of the run's evaluator that are numbers; the same on all ranks."""
    loop, teacher = runner.val_loop, model.teacher
    evaluator = None
    was_training, own = teacher.training, teacher.data_preprocessor
    teacher.eval()
    teacher.data_preprocessor = teacher_preprocessor(model)
    try:
        # Workers that persist draw a random number when they start, in the first validation,
        # which is the training's.
        dataset, batches = loop.dataloader.dataset, loop.dataloader.batch_sampler
        loader = copy_loader(loop.dataloader, dataset=dataset, batch_sampler=batches)
        with seeded_by_rank():
            for batch in progress(loader, "Evaluating the teacher"):
                with _precision(runner, model):
                    outputs = teacher.val_step(batch)
                for output in outputs:
                    _widen(output)
                if evaluator is None:
                    evaluator = fitting_evaluator(loop.evaluator, outputs, "the teacher")
                evaluator.process(data_samples=outputs, data_batch=batch)
            if evaluator is None:
                raise InvalidInputError("TeacherAccuracyHook: the validation data has no batch")
            metrics = evaluator.evaluate(len(dataset))
    finally:
        teacher.train(was_training)
        teacher.data_preprocessor = own
    return {key: float(value) for key, value in metrics.items() if isinstance(value, NUMBERS)}


@contextmanager
def _precision(runner: Runner, model: Any) -> Iterator[str]:
    half = getattr(runner.val_loop, "fp16", False)
    with autocast(enabled=half), training_precision(runner, model) as dtype:
        yield dtype


def _widen(sample: BaseDataElement) -> None:
    """Convert 16-bit predictions to float32, in place: evaluators take NumPy's types alone."""
    for name, value in sample.items():
        if isinstance(value, BaseDataElement):
            _widen(value)
        elif isinstance(value, torch.Tensor) and value.dtype in (torch.float16, torch.bfloat16):
            setattr(sample, name, value.float())


def _report(runner: Runner, metrics: dict[str, float]) -> None:
    listed = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()) or "none"
    runner.logger.info(f"The teacher's metrics on the validation data: {listed}")
    scalars = {f"teacher/{name}": value for name, value in metrics.items()}
    if scalars:
        runner.message_hub.update_scalars(scalars)
        runner.visualizer.add_scalars(scalars, step=0)
