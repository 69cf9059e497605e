"""A student that trains with its own losses beside a teacher that stays as it is."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmrazor.models.algorithms import SingleTeacherDistill
from mmrazor.models.task_modules.recorder.base_recorder import BaseRecorder
from mmrazor.models.utils import add_prefix
from mmrazor.registry import MODELS as RAZOR_MODELS
from torch import Tensor, nn

from kd_det.algorithms import embeddings, heads, inherit, probes, wiring
from kd_det.algorithms.empty import without_rois
from kd_det.algorithms.speed import Speed
from kd_det.algorithms.teacher import Teacher
from kd_det.algorithms.teacher_input import TeacherInput
from kd_det.errors import InvalidInputError
from kd_det.recorders import recording
from kd_det.registry import MODELS
from kd_det.seeds import MODEL, Seeds, numbers_of


@MODELS.register_module()
class TeacherDistill(SingleTeacherDistill):
    """Student + :class:`~kd_det.algorithms.teacher.Teacher` + probe + MMRazor's distiller.

    One step: the teacher runs on the student's batch, converted to its own input
    (:class:`~kd_det.algorithms.teacher_input.TeacherInput`), as deep as losses read it; the student
    computes its own losses; where losses read RoIs, the teacher's box heads score those that the
    student sampled; the distiller hands what recorders kept to connectors and losses. Unlike
    MMRazor's ``SingleTeacherDistill``, the teacher is in eval mode all the time, its samplers,
    assigners and losses never run, every one of its weights must be in ``teacher_ckpt``, and none
    is written to checkpoints. With all distillation weights 0, the student trains as it does alone,
    bit for bit: teacher and connectors take none of its random numbers.

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
            before it loads or resumes a checkpoint, so that a checkpoint wins. Who trains without
            a Runner has to call it.
        teacher_stage: Which stages of a teacher that is a cascade score the student's RoIs.
            ``'same'``: stage i those of the student's stage i, the default where both are
            cascades of equally many stages. ``'last'``: the last stage, the default otherwise.
            ``'mean'``: all stages; recorders find the mean of their embeddings and logits as
            outputs 0 and 1 of ``roi_head.stage_mean``. With the latter two, or a teacher with
            one box head, a teacher's record i (``record_idx``) is of the student's stage i.
        speed: Options of :class:`~kd_det.algorithms.speed.Speed`, as
            ``dict(channels_last=True, teacher_dtype='bfloat16')``.
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

    def __init__(
        self,
        distiller: dict[str, Any],
        teacher: BaseModel | dict[str, Any],
        architecture: BaseModel | dict[str, Any],
        teacher_ckpt: str | None = None,
        init_student_from_teacher: Sequence[str] | None = None,
        teacher_stage: str | None = None,
        speed: Mapping[str, Any] | None = None,
        probe: str | None = None,
        inherit: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        if inherit is not None:
            new = "model.inherit is now called init_student_from_teacher"
            warnings.warn(new, DeprecationWarning, stacklevel=2)
        modules = init_student_from_teacher or inherit or ()
        self.speed = Speed.of(speed)
        self._check_options(distiller, teacher, teacher_ckpt, kwargs)
        student = build(architecture)
        with _own_numbers():
            self._set_up(student, build(teacher), distiller, teacher_ckpt, modules,
                         teacher_stage, probe or self.default_probe, kwargs)  # fmt: skip

    def _set_up(
        self,
        student: BaseModel,
        teacher: BaseModel,
        distiller: dict[str, Any],
        teacher_ckpt: str | None,
        modules: Sequence[str],
        teacher_stage: str | None,
        probe: str | None,
        more: dict[str, Any],
    ) -> None:
        """Load the teacher, build the distiller, and check that all fits."""
        if probe == "roi":
            heads.require_pair(student, teacher)
        self.teacher_stage = heads.choose_stage(teacher_stage, student, teacher)
        if self.teacher_stage == "mean":
            heads.add_stage_mean(teacher)
        wiring.check_mappings(distiller)
        wiring.check_sources(distiller.get("student_recorders") or {}, student, "student")
        wiring.check_sources(distiller.get("teacher_recorders") or {}, teacher, "teacher")
        self._inherited = inherit.plan(student, teacher, modules)
        self.fixed_teacher = Teacher(teacher, teacher_ckpt, self.speed)
        self.teacher_classes = self.fixed_teacher.classes

        # The distiller names MMRazor's recorders and losses, whatever scope the runner is in.
        distiller = {"_scope_": "mmrazor", **distiller}
        super().__init__(distiller, teacher=teacher, architecture=student, **more)
        del self._modules["teacher"]  # an attribute, see Teacher
        self.teacher_input = TeacherInput.between(self.data_preprocessor, teacher)
        self.probe = probes.choose(probe, student, teacher, self.distiller, self.teacher_stage)
        self._log_setup(*self._dry_run())
        # Last, since compiled parts would be compiled anew for the small images of a dry run.
        self.fixed_teacher.speed_up(self._recorders("teacher"))
        self.speed.convert(student, teacher, self.distiller)

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
        """Initialise student and connectors, then copy what the student takes of the teacher."""
        if self.is_init:  # the second of two calls must not undo a training
            super().init_weights()  # warns
            return
        with _own_numbers():
            self.distiller.init_weights()
        super().init_weights()
        if self._inherited:
            inherit.copy(self.student, self.teacher, self._inherited)
            rows = inherit.table(self._inherited)
            print_log(f"The student starts from the teacher:\n{rows}", logger="current")

    def train(self, mode: bool = True) -> TeacherDistill:
        """Set the mode of student and connectors; the teacher stays in eval mode."""
        super().train(mode)
        self.teacher.eval()
        # MMRazor's validation loop, which calls this first, gave the teacher the student's.
        self.teacher.data_preprocessor = self.teacher_input.theirs
        return self

    def _apply(self, *args: Any, **kwargs: Any) -> TeacherDistill:
        """Move to a device or dtype (what ``to`` and its like call), with the teacher."""
        self.fixed_teacher.move(*args, **kwargs)
        return super()._apply(*args, **kwargs)

    def loss(self, batch_inputs: Tensor, data_samples: list | None = None) -> dict[str, Tensor]:
        """Losses of one batch, keys prefixed ``student.`` and ``distill.``."""
        try:
            losses = add_prefix(self._record(batch_inputs, data_samples), "student")
            if not self.distillation_stopped:
                losses.update(add_prefix(self._distill_losses(), "distill"))
            return losses
        finally:
            self._forget_records()

    def _record(self, batch_inputs: Tensor, data_samples: list | None) -> dict[str, Tensor]:
        """Run both models under their recorders; returns the student's own losses."""
        batch_inputs = self.speed.layout(batch_inputs)
        teacher, probe, distiller = self.fixed_teacher, self.probe, self.distiller
        ours = [*self._recorders("student"), *probe.student_recorders]
        theirs = self._recorders("teacher")
        teaches = not self.distillation_stopped
        distiller.set_deliveries_override(False)
        if teaches:
            # Ahead of the student, whose maps are kept for its backward pass: less at once.
            with teacher.turn(ahead=True), recording(theirs), distiller.deliveries:
                inputs = self.speed.layout(self.teacher_input(batch_inputs, data_samples))
                seen = probe.run(teacher.model, inputs, data_samples)
        distiller.set_deliveries_override(teaches)
        with recording(ours), probe.during(self.student, ours), distiller.deliveries:
            losses = self.student(batch_inputs, data_samples, mode="loss")
        if teaches:
            teacher.join([seen, [recorder.data_buffer for recorder in theirs]])
            with teacher.turn(), recording(theirs, go_on=True):
                probe.follow(seen)
        return losses

    def _distill_losses(self) -> dict[str, Tensor]:
        """The distiller's; an error says where each argument of each loss comes from."""
        if self.probe.lacks_rois:
            return without_rois(self.distiller, self.student)
        try:
            return self.distiller.compute_distill_losses()
        except Exception as error:
            for name in self.distiller.loss_forward_mappings:
                note = f"{name}: {wiring.describe(self.distiller, name)}"
                getattr(error, "add_note", str)(note)  # since Python 3.11
            raise

    def _recorders(self, who: str) -> list[BaseRecorder]:
        return list(getattr(self.distiller, f"{who}_recorders").recorders.values())

    def _forget_records(self) -> None:
        # Feature maps would otherwise stay in memory until the next step.
        of_both = [*self._recorders("student"), *self._recorders("teacher")]
        for recorder in (*of_both, *self.probe.student_recorders):
            recorder.reset_data_buffer()
        for delivery in self.distiller.deliveries.deliveries.values():
            delivery.data_queue.clear()

    def teacher_embeddings(
        self, batch: Mapping[str, Any], rois: str = "sampled"
    ) -> Iterator[tuple[str, Tensor, Tensor]]:
        """The teacher's embeddings that losses with class centers compare, of one batch.

        Args:
            batch: What a dataloader yields.
            rois: Of a detector with an RoI head: ``'sampled'``, its own proposals as its assigner
                and sampler choose them in training, or ``'gt'``, the annotated boxes.

        Returns:
            For each source, the module that is recorded, and each set of RoIs: the source,
            embeddings ``[n, D]`` and labels ``[n]``; background has the label behind the last.

        Raises:
            ValueError: If no loss asks for class centers, or ``t_emb`` is no record of the teacher.
            TypeError: If the teacher is neither a classifier nor a detector with an RoI head.
        """
        return iter(embeddings.teacher_embeddings(self, batch, rois))

    @property
    def embedding_sources(self) -> dict[str, str]:
        """Source of :meth:`teacher_embeddings` for each loss that asks for class centers."""
        return embeddings.embedding_sources(self)

    @torch.no_grad()
    def _dry_run(self) -> tuple[dict[str, dict[str, str]], str]:
        """Run a step on a blank image, without a trace in state or RNG.

        Returns:
            Shapes of all loss arguments, and of the batches that student and teacher got.

        Raises:
            kd_det.algorithms.WiringError: If a loss does not fit images of any size.
        """
        buffers = {name: buffer.clone() for name, buffer in self.named_buffers()}
        training = self.training
        self.eval()
        # Detectors with denoising queries ask the detector; layers stay in eval mode.
        self.student.training = True
        failed: list[Exception] = []
        try:
            with torch.random.fork_rng(devices=[]):
                for side in wiring.sides(self.student):
                    try:
                        return self._run_blank(side)
                    except Exception as error:  # a blank image may be none for some model
                        failed.append(error)
                    finally:
                        self._forget_records()
        finally:
            heads.forget_history(self.student)
            for name, buffer in self.named_buffers():
                buffer.copy_(buffers[name])
            self.train(training)
        for found in failed:
            if isinstance(found, wiring.WiringError):
                raise found
        text = f"not checked, since a model does not run on a blank image: {failed[0]!r}"
        print_log(f"Losses and connectors were {text}", logger="current", level=30)
        return {}, text

    def _run_blank(self, side: int) -> tuple[dict[str, dict[str, str]], str]:
        inputs, samples = wiring.dry_run_input(self.data_preprocessor, self.student, side)
        theirs = self.teacher_input(inputs, samples)
        self._record(inputs, samples)
        hint = self.teacher_input.hint if inputs.shape != theirs.shape else ""
        batches = f"{list(inputs.shape)} to student, {list(theirs.shape)} to teacher"
        found = wiring.check_losses(self.distiller, hint)
        return found, f"shapes are those of one image of {side} x {side} pixels: {batches}"

    def _log_setup(self, shapes: Mapping[str, Mapping[str, str]], batches: str) -> None:
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
        lines += [
            f"  teacher's input: {self.teacher_input.describe()}",
            f"  probe: {self.probe.name}",
            *([f"  teacher's stages: {self.teacher_stage}"] if self.teacher_stage else []),
            f"  {batches}",
            f"  speed: {self.speed}",
        ]
        print_log("\n".join(lines), logger="current")


@MODELS.register_module()
class RoITeacherDistill(TeacherDistill):
    """:class:`TeacherDistill` for two-stage detectors alone, under its old name."""

    default_probe = "roi"


@MODELS.register_module()
class FixedTeacherDistill(TeacherDistill):
    """:class:`TeacherDistill` under its old name."""


def build(model: BaseModel | dict[str, Any]) -> BaseModel:
    """A model from its config, also in MMRazor's form ``dict(cfg_path='mmdet::...')``."""
    return model if isinstance(model, nn.Module) else RAZOR_MODELS.build(model)


@contextmanager
def _own_numbers() -> Iterator[None]:
    """Random numbers for what the student alone would not have; then the student's go on."""
    seeds = Seeds(MODEL, torch.initial_seed())
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices), numbers_of(seeds):
        if devices:
            torch.cuda.manual_seed(seeds.torch)
        yield


def _millions(module: nn.Module) -> str:
    return f"{sum(p.numel() for p in module.parameters()) / 1e6:.2f} M"
