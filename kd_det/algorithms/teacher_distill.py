"""A student that trains with its own losses beside a teacher that stays as it is."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmrazor.models.algorithms import SingleTeacherDistill
from mmrazor.models.task_modules.recorder.base_recorder import BaseRecorder
from mmrazor.models.utils import add_prefix
from mmrazor.registry import MODELS as RAZOR_MODELS
from torch import Tensor, nn

from kd_det.algorithms import heads, probes, student_init, wiring
from kd_det.algorithms.describe import describe
from kd_det.algorithms.dry_run import dry_run
from kd_det.algorithms.speed import Speed
from kd_det.algorithms.teacher import Teacher
from kd_det.algorithms.teacher_input import TeacherInput
from kd_det.errors import InvalidInputError, add_note
from kd_det.recorders import recording
from kd_det.registry import MODELS
from kd_det.seeds import MODEL, Seeds, seeded
from kd_det.timing import StepTimer


@MODELS.register_module()
class TeacherDistill(SingleTeacherDistill):
    """Student + :class:`~kd_det.algorithms.teacher.Teacher` + probe + MMRazor's distiller.

    One step (:meth:`loss`): the teacher runs on the student's batch, converted to its own input
    (:class:`~kd_det.algorithms.teacher_input.TeacherInput`), as deep as losses read it; the student
    computes its own losses; where losses read RoIs, the teacher's box heads score those that the
    student sampled; the distiller hands the records to connectors and losses. Unlike MMRazor's
    ``SingleTeacherDistill``, the teacher is in eval mode all the time, its samplers, assigners and
    losses never run, every one of its weights must be in ``teacher_ckpt``, and none is written to
    checkpoints. With all distillation weights 0, the student trains as it does alone, bit for bit:
    teacher and connectors take none of its random numbers.

    Args:
        distiller: Config of MMRazor's ``ConfigurableDistiller``, with any of its recorders,
            connectors, losses and, unless RoIs are scored, deliveries.
        teacher: Config of the teacher, or the model.
        architecture: Config of the student, or the model.
        teacher_ckpt: File or URL of the teacher's weights. Required unless ``teacher`` is a
            model that is built (and loaded) already.
        init_student_from_teacher: Dotted paths of modules, as ``['neck', 'rpn_head', 'roi_head']``,
            in which the student starts from the teacher's parameters and buffers, where their
            shapes agree. They are copied at the end of :meth:`init_weights`, which a Runner calls
            before it loads or resumes a checkpoint, so that a checkpoint wins. Call it yourself
            where you train without a Runner.
        teacher_stage: Which stages of a teacher that is a cascade score the student's RoIs.
            ``'same'``: stage i those of the student's stage i, the default where both are
            cascades of equally many stages. ``'last'``: the last stage, the default otherwise.
            ``'mean'``: all stages; recorders find the mean of their embeddings and logits as
            outputs 0 and 1 of ``roi_head.stage_mean``. With the latter two, or a teacher with
            one box head, a teacher's record i (``record_idx``) is of the student's stage i.
        speed: Options of :class:`~kd_det.algorithms.speed.Speed`, as
            ``dict(channels_last=True, teacher_dtype='bfloat16')``, or ``'auto'``.
        probe: How the teacher is run, one of those of :mod:`kd_det.algorithms.probes`; None for
            the cheapest that offers what losses read.
        inherit: Old name of ``init_student_from_teacher``.

    Raises:
        TypeError: If losses read RoIs, and a side is not a two-stage detector with a supported
            RoI head.
        kd_det.algorithms.WiringError: If recorders, connectors and losses do not fit.
        kd_det.algorithms.CheckpointError: If the checkpoint lacks teacher weights.
        ValueError: For options that this algorithm does not have.
    """

    default_probe: str | None = None
    timer: StepTimer | None = None  # set to time the parts of steps

    def __init__(
        self,
        distiller: dict[str, Any],
        teacher: BaseModel | dict[str, Any],
        architecture: BaseModel | dict[str, Any],
        teacher_ckpt: str | None = None,
        init_student_from_teacher: Sequence[str] | None = None,
        teacher_stage: str | None = None,
        speed: Mapping[str, Any] | str | None = None,
        probe: str | None = None,
        inherit: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        if inherit is not None:
            text = "model.inherit is now called init_student_from_teacher"
            warnings.warn(text, DeprecationWarning, stacklevel=2)
        modules = init_student_from_teacher or inherit or ()
        probe = probe or self.default_probe
        self.speed = Speed.of(speed)
        self._check_options(distiller, teacher, teacher_ckpt, kwargs)
        student = build(architecture)
        with _separate_rng():
            teacher = build(teacher)
            if probe == "roi":
                heads.require_pair(student, teacher)
            self.teacher_stage = heads.choose_stage(teacher_stage, student, teacher)
            if self.teacher_stage == "mean":
                heads.add_stage_mean(teacher)
            wiring.check_names(distiller, student, teacher)
            self._start = student_init.plan(student, teacher, modules)
            self.fixed_teacher = Teacher(teacher, teacher_ckpt, self.speed)
            self.teacher_classes = self.fixed_teacher.classes
            # Of what was loaded: options of speed replace some of the teacher's tensors.
            loaded = teacher.state_dict()
            self._sources = {row.name: loaded[row.name] for row in self._start if row.agrees}

            # The distiller names MMRazor's recorders and losses, whatever scope the runner is in.
            distiller = {"_scope_": "mmrazor", **distiller}
            super().__init__(distiller, teacher=teacher, architecture=student, **kwargs)
            del self._modules["teacher"]  # an attribute, see Teacher
            connectors = self.distiller.connectors.modules()
            borrowing = [part for part in connectors if hasattr(part, "set_teacher")]
            for connector in borrowing:
                connector.set_teacher(teacher)
            self.teacher_input = TeacherInput.between(self.data_preprocessor, teacher)
            self.probe = probes.choose(probe, student, teacher, self.distiller, self.teacher_stage)
            print_log(describe(self, *dry_run(self)), logger="current")
            # After the dry run, whose small images would need a compilation of their own.
            self.fixed_teacher.speed_up(self.recorders("teacher"), bool(borrowing))
            self.speed.set_layout(student, teacher, self.distiller)

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

    @property
    def teacher(self) -> Any:
        """The teacher's model."""
        return self.fixed_teacher.model

    def init_weights(self) -> None:
        """Initialise student and connectors, then copy the teacher's weights to the student."""
        if self.is_init:  # a second call must not undo a training
            super().init_weights()  # warns
            return
        with _separate_rng():
            self.distiller.init_weights()
        super().init_weights()
        if self._start:
            student_init.copy(self.student, self._sources, self._start)
            self._sources.clear()
            rows = student_init.format_table(self._start)
            print_log(f"The student starts from the teacher:\n{rows}", logger="current")

    def train(self, mode: bool = True) -> TeacherDistill:
        """Set the mode of student and connectors; the teacher stays in eval mode."""
        super().train(mode)
        self.teacher.eval()
        # MMRazor's validation loop, which calls this first, gave the teacher the student's.
        self.teacher.data_preprocessor = self.teacher_input.preprocessor
        return self

    def _apply(self, *args: Any, **kwargs: Any) -> TeacherDistill:
        """Move to a device or dtype, as ``to`` and its like do, together with the teacher."""
        self.fixed_teacher.move(*args, **kwargs)
        return super()._apply(*args, **kwargs)

    def loss(self, batch_inputs: Tensor, data_samples: list | None = None) -> dict[str, Tensor]:
        """Losses of one batch, keys prefixed ``student.`` and ``distill.``."""
        try:
            losses = add_prefix(self.record(batch_inputs, data_samples), "student")
            if not self.distillation_stopped:
                with self._timed("losses"):
                    distilled = self._distill_losses()
                losses.update(add_prefix(distilled, "distill"))
            return losses
        finally:
            self.drop_records()

    def record(self, batch_inputs: Tensor, data_samples: list | None) -> dict[str, Tensor]:
        """Run teacher and student under their recorders; return the student's own losses."""
        batch_inputs = self.speed.layout(batch_inputs)
        if self.distillation_stopped:
            return self.student(batch_inputs, data_samples, mode="loss")
        teacher, probe, distiller = self.fixed_teacher, self.probe, self.distiller
        of_teacher = self.recorders("teacher")
        of_student = [*self.recorders("student"), *probe.student_recorders]

        # Ahead of the student, whose maps are kept for its backward pass: lower peak memory.
        distiller.set_deliveries_override(False)
        with (
            teacher.forward_context(ahead=True),
            self._timed("teacher"),
            recording(of_teacher),
            distiller.deliveries,
        ):
            inputs = self.speed.layout(self.teacher_input(batch_inputs, data_samples))
            teacher.settle(inputs)
            seen = probe.run(teacher.model, inputs, data_samples)

        distiller.set_deliveries_override(True)
        with (
            self._timed("student"),
            recording(of_student),
            probe.student_context(self.student, of_student),
            distiller.deliveries,
        ):
            losses = self.student(batch_inputs, data_samples, mode="loss")

        teacher.wait_for([seen, [recorder.data_buffer for recorder in of_teacher]])
        with (
            teacher.forward_context(),
            self._timed("teacher"),
            recording(of_teacher, go_on=True),
        ):
            probe.run_after_student(seen)
        with self._timed("student"):
            probe.run_student_again(self.student, seen)
        return losses

    def _timed(self, part: str) -> AbstractContextManager[None]:
        return nullcontext() if self.timer is None else self.timer.part(part)

    def _distill_losses(self) -> dict[str, Tensor]:
        """Losses of the distiller; an error says where each argument of each loss comes from."""
        try:
            return self.probe.distill_losses(self.distiller, self.student)
        except Exception as error:
            for name in self.distiller.loss_forward_mappings:
                note = f"{name}: {wiring.describe_arguments(self.distiller, name)}"
                add_note(error, note)
            raise

    def recorders(self, who: str) -> list[BaseRecorder]:
        """Recorders of the distiller on one side, ``'student'`` or ``'teacher'``."""
        return list(getattr(self.distiller, f"{who}_recorders").recorders.values())

    def drop_records(self) -> None:
        """Empty recorders and deliveries, which would keep feature maps until the next step."""
        of_both = [*self.recorders("student"), *self.recorders("teacher")]
        for recorder in (*of_both, *self.probe.student_recorders):
            recorder.reset_data_buffer()
        for delivery in self.distiller.deliveries.deliveries.values():
            delivery.data_queue.clear()


@MODELS.register_module()
class RoITeacherDistill(TeacherDistill):
    """:class:`TeacherDistill` for two-stage detectors alone, under its old name."""

    default_probe = "roi"


@MODELS.register_module()
class FixedTeacherDistill(TeacherDistill):
    """:class:`TeacherDistill` under its old name."""


def build(model: BaseModel | dict[str, Any]) -> BaseModel:
    """Build a model from its config, also in MMRazor's form ``dict(cfg_path='mmdet::...')``."""
    return model if isinstance(model, nn.Module) else RAZOR_MODELS.build(model)


def _separate_rng() -> AbstractContextManager[None]:
    """Seed the generators for what the student alone would not have; restore them at the end."""
    return seeded(Seeds(MODEL, torch.initial_seed()))
