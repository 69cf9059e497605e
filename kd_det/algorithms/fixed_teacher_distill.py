"""Distillation from a teacher that is read, run, and never touched."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModel, BaseModule
from mmrazor.models.algorithms import SingleTeacherDistill
from mmrazor.models.task_modules.recorder.base_recorder import BaseRecorder
from mmrazor.models.utils import add_prefix
from mmrazor.registry import MODELS as RAZOR_MODELS
from torch import Tensor, nn

from kd_det.algorithms import inherit as inheritance
from kd_det.algorithms import speed as speeding
from kd_det.algorithms import wiring
from kd_det.algorithms.checkpoint import load_weights
from kd_det.algorithms.speed import Speed
from kd_det.errors import InvalidInputError
from kd_det.registry import MODELS


@MODELS.register_module()
class FixedTeacherDistill(SingleTeacherDistill):
    """MMRazor's ``SingleTeacherDistill`` whose teacher stays as it was trained.

    For models of any kind: the teacher runs its own ``loss`` forward pass on the student's batch,
    without gradient, and recorders keep what they find on both sides. The batch is the one that
    the student's data preprocessor made; a teacher with another normalisation is refused. Other
    than MMRazor's, the teacher is in eval mode all the time (MMRazor puts all but its batch norms
    into train mode, so that dropout and drop path act), every one of its weights must be in
    ``teacher_ckpt``, and none is written to checkpoints.

    Args:
        distiller: Config of MMRazor's ``ConfigurableDistiller``, with any of its recorders,
            connectors, losses and deliveries.
        teacher: Config of the teacher, or the model.
        architecture: Config of the student, or the model.
        teacher_ckpt: File or URL of the teacher's weights. Required unless ``teacher`` is a
            model that is built (and loaded) already.
        inherit: Dotted paths of modules, as ``['neck', 'rpn_head', 'roi_head']``, in which the
            student starts from the teacher's parameters and buffers, where their shapes agree.
            They are copied at the end of :meth:`init_weights`, which a Runner calls before it
            loads or resumes a checkpoint, so that a checkpoint wins. Who trains without a
            Runner has to call it.
        speed: Options of :class:`~kd_det.algorithms.speed.Speed`, as
            ``dict(channels_last=True, teacher_dtype='bfloat16')``.

    Raises:
        kd_det.algorithms.WiringError: If recorders, connectors and losses do not fit.
        kd_det.algorithms.CheckpointError: If the checkpoint lacks teacher weights.
        ValueError: For options that this algorithm does not have.
    """

    def __init__(
        self,
        distiller: dict[str, Any],
        teacher: BaseModel | dict[str, Any],
        architecture: BaseModel | dict[str, Any],
        teacher_ckpt: str | None = None,
        inherit: Sequence[str] | None = None,
        speed: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.speed = Speed.of(speed)
        self._check_options(distiller, teacher, teacher_ckpt, kwargs)
        student, teacher = build(architecture), build(teacher)
        wiring.check_mappings(distiller)
        wiring.check_sources(distiller.get("student_recorders") or {}, student, "student")
        wiring.check_sources(distiller.get("teacher_recorders") or {}, teacher, "teacher")
        inherited = inheritance.plan(student, teacher, inherit or ())

        # The distiller names MMRazor's recorders and losses, whatever scope the runner is in.
        distiller = {"_scope_": "mmrazor", **distiller}
        super().__init__(distiller, teacher=teacher, architecture=student, **kwargs)
        self._inherited = inherited
        self.teacher_classes: list[str] | None = None
        if teacher_ckpt is not None:
            self.teacher_classes = load_weights(self.teacher, teacher_ckpt, "teacher")
        self.teacher.eval()
        _mark_initialised(self.teacher)
        self._register_state_dict_hook(_leave_teacher_out)
        self.register_load_state_dict_post_hook(_expect_no_teacher)
        self._set_up()
        # Last, since compiled parts would be compiled anew for the small images of a dry run.
        self.speed.prepare(self.student, self.teacher, self.distiller)

    @property
    def _teacher_recorders(self) -> list[BaseRecorder]:
        return list(self.distiller.teacher_recorders.recorders.values())

    def _set_up(self) -> None:
        """What follows when all parts are there: here, a check, and the log says what was built."""
        ours, theirs = (_normalisation(m) for m in (self, self.teacher))
        if theirs is not None and ours != theirs:
            raise wiring.WiringError(
                "the teacher gets the batches of the student's data_preprocessor, but its own "
                f"normalises in another way (mean, std, channels swapped): expected {theirs}, "
                f"found {ours}; give both the same"
            )
        self._log_setup({}, [])

    def _check_options(
        self,
        distiller: Mapping[str, Any],
        teacher: Any,
        teacher_ckpt: str | None,
        given: Mapping[str, Any],
    ) -> None:
        name = f"kd_det.{type(self).__name__}"
        if self.speed.overlap_teacher and distiller.get("distill_deliveries"):
            raise InvalidInputError(
                f"{name}: speed.overlap_teacher runs the teacher beside the student, and nothing "
                "can be delivered between them; expected no distill_deliveries, found "
                f"{sorted(distiller['distill_deliveries'])}"
            )
        fixed = dict(teacher_trainable=False, student_trainable=True, calculate_student_loss=True)
        for option, value in fixed.items():
            if given.get(option, value) != value:
                raise InvalidInputError(
                    f"{name} trains the student with its own losses beside a fixed teacher: "
                    f"expected {option}={value}, found {given[option]}"
                )
        if teacher_ckpt is None and not isinstance(teacher, nn.Module):
            raise InvalidInputError(
                f"{name} expected teacher_ckpt, the file or URL of the teacher's weights, found "
                "None: a randomly initialised teacher teaches nothing"
            )

    def init_weights(self) -> None:
        """Initialise the student and the connectors, then copy what the student inherits."""
        trained = self.is_init  # the second of two calls must not undo a training
        super().init_weights()
        if self._inherited and not trained:
            inheritance.copy(self.student, self.teacher, self._inherited)
            rows = inheritance.table(self._inherited)
            print_log(f"The student starts from the teacher:\n{rows}", logger="current")

    def train(self, mode: bool = True) -> FixedTeacherDistill:
        """Set the mode of student and connectors; the teacher stays in eval mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def loss(self, batch_inputs: Tensor, data_samples: list | None = None) -> dict[str, Tensor]:
        """Losses of one batch, keys prefixed ``student.`` and ``distill.``."""
        distiller, batch_inputs = self.distiller, self.speed.layout(batch_inputs)
        try:
            if not self.distillation_stopped:
                distiller.set_deliveries_override(False)
                with self._teacher_turn(), distiller.teacher_recorders, distiller.deliveries:
                    self.teacher(batch_inputs, data_samples, mode="loss")
            distiller.set_deliveries_override(not self.distillation_stopped)
            with distiller.student_recorders, distiller.deliveries:
                losses = self.student(batch_inputs, data_samples, mode="loss")
            losses = add_prefix(losses, "student")
            if not self.distillation_stopped:
                self._await_teacher()
                losses.update(add_prefix(self._compute_distill_losses(), "distill"))
            return losses
        finally:
            self._forget_records()

    @contextmanager
    def _teacher_turn(self) -> Iterator[None]:
        """The context in which the teacher runs ahead of the student."""
        device = next(self.teacher.parameters()).device
        with (
            torch.no_grad(),
            speeding.beside(device, self.speed.overlap_teacher),
            self.speed.teacher_autocast(device),
        ):
            yield

    def _await_teacher(self, *more: Any) -> None:
        """Wait for :meth:`_teacher_turn`; what it recorded, and ``more``, may be used then."""
        device = next(self.teacher.parameters()).device
        records = [recorder.data_buffer for recorder in self._teacher_recorders]
        speeding.join(device, self.speed.overlap_teacher, [records, more])

    def _compute_distill_losses(self) -> dict[str, Tensor]:
        """The distiller's; an error says where each argument of each loss comes from."""
        try:
            return self.distiller.compute_distill_losses()
        except Exception as error:
            for name in self.distiller.loss_forward_mappings:
                if hasattr(error, "add_note"):  # new in Python 3.11
                    error.add_note(f"{name}: {wiring.describe(self.distiller, name)}")
            raise

    def _forget_records(self) -> None:
        # Feature maps would otherwise stay in memory until the next step.
        for side in (self.distiller.student_recorders, self.distiller.teacher_recorders):
            for recorder in side.recorders.values():
                recorder.reset_data_buffer()

    def _log_setup(self, shapes: Mapping[str, Mapping[str, str]], more: Sequence[str]) -> None:
        """Log both models and the origin (and shape, where known) of each loss argument."""
        lines = ["Distillation:"]
        for who in ("teacher", "student"):
            model = getattr(self, who)
            lines.append(f"  {who}: {type(model).__name__}, {_millions(model)} parameters")
        if len(self.distiller.connectors):
            lines.append(f"  connectors: {_millions(self.distiller.connectors)} parameters")
        for name in self.distiller.loss_forward_mappings:
            loss = self.distiller.distill_losses[name]
            weight = getattr(loss, "loss_weight", "not stated")
            lines.append(f"  {name}: {type(loss).__name__}, weight {weight}")
            for argument, source in wiring.describe(self.distiller, name).items():
                shape = shapes.get(name, {}).get(argument)
                lines.append(f"    {argument}: {source}{f', {shape}' if shape else ''}")
        lines += [f"  {line}" for line in more]
        lines.append(f"  speed: {self.speed}")
        print_log("\n".join(lines), logger="current")


def build(model: BaseModel | dict[str, Any]) -> BaseModel:
    """A model from its config, also in MMRazor's form ``dict(cfg_path='mmdet::...')``."""
    return model if isinstance(model, nn.Module) else RAZOR_MODELS.build(model)


def _normalisation(model: BaseModel) -> tuple | None:
    """Mean, std and whether channels are swapped; None for a preprocessor that does nothing."""
    found = model.data_preprocessor
    swap = bool(getattr(found, "to_rgb", getattr(found, "_channel_conversion", False)))
    if not getattr(found, "_enable_normalize", False):
        return (None, None, swap) if swap else None
    mean, std = (values.double().flatten().tolist() for values in (found.mean, found.std))
    return mean, std, swap


def _mark_initialised(model: BaseModel) -> None:
    # Weight initialisation would overwrite what was loaded, or download a backbone.
    for module in model.modules():
        if isinstance(module, BaseModule):
            module.is_init = True


def _millions(module: nn.Module) -> str:
    return f"{sum(p.numel() for p in module.parameters()) / 1e6:.2f} M"


def _leave_teacher_out(module: nn.Module, state: dict, prefix: str, _: dict) -> None:
    for key in [key for key in state if key.startswith(f"{prefix}teacher.")]:
        del state[key]


def _expect_no_teacher(module: nn.Module, keys: Any) -> None:
    # Checkpoints hold no teacher; it was read from teacher_ckpt when the model was built.
    kept = [key for key in keys.missing_keys if not re.match(r"(module\.)*teacher\.", key)]
    keys.missing_keys[:] = kept
