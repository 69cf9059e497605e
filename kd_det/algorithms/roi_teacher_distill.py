"""Two-stage distillation in which teacher and student see the same RoIs."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModel, BaseModule
from mmrazor.models.algorithms import SingleTeacherDistill
from mmrazor.models.task_modules import ModuleInputsRecorder
from mmrazor.models.utils import add_prefix
from mmrazor.registry import MODELS as RAZOR_MODELS
from torch import Tensor, nn

from kd_det.algorithms import heads, roi, wiring
from kd_det.algorithms import inherit as inheritance
from kd_det.algorithms.checkpoint import load_weights
from kd_det.algorithms.empty import without_rois
from kd_det.algorithms.teacher_input import TeacherInput
from kd_det.registry import MODELS


@MODELS.register_module()
class RoITeacherDistill(SingleTeacherDistill):
    """MMRazor's ``SingleTeacherDistill`` for two-stage detectors with RoI box heads.

    One step: the student computes its own losses on the RoIs that it sampled; the teacher, in
    eval mode and without gradient, computes its pyramid and scores the same RoIs, those of each
    stage where the student is a cascade; the distiller hands what recorders kept to connectors
    and losses. The teacher's RPN, samplers and losses never run. Its weights come from
    ``teacher_ckpt``, never change, and are not written to checkpoints. Its input is that of its
    own data preprocessor, converted from the student's batch
    (:class:`~kd_det.algorithms.teacher_input.TeacherInput`).

    Args:
        distiller: Config of MMRazor's ``ConfigurableDistiller``, with any of its recorders,
            connectors and losses; no deliveries.
        teacher: Config of the teacher detector, or the detector.
        architecture: Config of the student detector, or the detector.
        teacher_ckpt: File or URL of the teacher's weights. Required unless ``teacher`` is a
            detector that is built (and loaded) already.
        inherit: Dotted paths of modules, as ``['neck', 'rpn_head', 'roi_head']``, in which the
            student starts from the teacher's parameters and buffers, where their shapes agree.
            They are copied at the end of :meth:`init_weights`, which a Runner calls before it
            loads or resumes a checkpoint, so that a checkpoint wins. Who trains without a
            Runner has to call it.
        teacher_stage: Which stages of a teacher that is a cascade score the student's RoIs.
            ``'same'``: stage i those of the student's stage i, the default where both are
            cascades of equally many stages. ``'last'``: the last stage, the default otherwise.
            ``'mean'``: all stages; recorders find the mean of their embeddings and logits as
            outputs 0 and 1 of ``roi_head.stage_mean``. With the latter two, or a teacher with
            one box head, a teacher's record i (``record_idx``) is of the student's stage i.

    Raises:
        TypeError: If a side is not a two-stage detector with a supported RoI head.
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
        teacher_stage: str | None = None,
        **kwargs: Any,
    ) -> None:
        _check_options(distiller, teacher, teacher_ckpt, kwargs)
        student = _build(architecture)
        teacher = _build(teacher)
        _check_pair(student, teacher)
        teacher_stage = heads.choose_stage(teacher_stage, student, teacher)
        if teacher_stage == "mean":
            heads.add_stage_mean(teacher)
        wiring.check_mappings(distiller)
        wiring.check_sources(distiller.get("student_recorders") or {}, student, "student")
        wiring.check_sources(distiller.get("teacher_recorders") or {}, teacher, "teacher")
        inherited = inheritance.plan(student, teacher, inherit or ())

        # The distiller names MMRazor's recorders and losses, whatever scope the runner is in.
        distiller = {"_scope_": "mmrazor", **distiller}
        super().__init__(distiller, teacher=teacher, architecture=student, **kwargs)
        self.teacher_stage = teacher_stage
        self._inherited = inherited
        self.teacher_input = TeacherInput(self.data_preprocessor, self.teacher.data_preprocessor)
        if teacher_ckpt is not None:
            load_weights(self.teacher, teacher_ckpt, "teacher")
        self.teacher.eval()
        _mark_initialised(self.teacher)

        self._student_rois = [ModuleInputsRecorder(n) for n in heads.roi_extractors(student)]
        for recorder in self._student_rois:
            recorder.initialize(self.student)
        self._register_state_dict_hook(_leave_teacher_out)
        self.register_load_state_dict_post_hook(_expect_no_teacher)
        self._log_setup(*self._dry_run())

    def init_weights(self) -> None:
        """Initialise the student and the connectors, then copy what the student inherits."""
        trained = self.is_init  # the second of two calls must not undo a training
        super().init_weights()
        if self._inherited and not trained:
            inheritance.copy(self.student, self.teacher, self._inherited)
            rows = inheritance.table(self._inherited)
            print_log(f"The student starts from the teacher:\n{rows}", logger="current")

    def train(self, mode: bool = True) -> RoITeacherDistill:
        """Set the mode of student and connectors; the teacher stays in eval mode."""
        super().train(mode)
        self.teacher.eval()
        # MMRazor's validation loop, which calls this first, gave the teacher the student's.
        self.teacher.data_preprocessor = self.teacher_input.theirs
        return self

    def loss(self, batch_inputs: Tensor, data_samples: list | None = None) -> dict[str, Tensor]:
        """Losses of one batch, keys prefixed ``student.`` and ``distill.``."""
        losses = add_prefix(self._record(batch_inputs, data_samples), "student")
        if not self.distillation_stopped:
            losses.update(add_prefix(self._distill_losses(), "distill"))
        self._forget_records()
        return losses

    def _distill_losses(self) -> dict[str, Tensor]:
        rois = self._rois()
        if len(rois) < len(self._student_rois) or not all(map(len, rois)):
            return without_rois(self.distiller, self.student)
        try:
            return self.distiller.compute_distill_losses()
        except Exception as error:
            for name in self.distiller.loss_forward_mappings:
                error.add_note(f"{name}: {wiring.describe(self.distiller, name)}")
            raise

    def _record(self, batch_inputs: Tensor, data_samples: list | None) -> dict[str, Tensor]:
        """Run both models under their recorders; returns the student's own losses."""
        recorders = [*self.distiller.student_recorders.recorders.values(), *self._student_rois]
        with ExitStack() as recording:
            for recorder in recorders:
                recording.enter_context(recorder)
            recording.enter_context(roi.samplers_unrecorded(self.student, recorders))
            losses = self.student(batch_inputs, data_samples, mode="loss")
        if not self.distillation_stopped:
            with torch.no_grad(), self.distiller.teacher_recorders:
                inputs = self.teacher_input(batch_inputs, data_samples)
                roi.score_rois(self.teacher, inputs, self._rois(), self.teacher_stage)
        return losses

    def _rois(self) -> list[Tensor]:
        """RoIs ``[n, 5]`` of each stage of the student; mmdet may break a cascade off."""
        # The first call is the box branch's; others may share the module.
        recorded = [recorder for recorder in self._student_rois if recorder.data_buffer]
        return [recorder.get_record_data(data_idx=1) for recorder in recorded]

    def _forget_records(self) -> None:
        # Feature maps would otherwise stay in memory until the next step.
        sides = (self.distiller.student_recorders, self.distiller.teacher_recorders)
        recorders = [recorder for side in sides for recorder in side.recorders.values()]
        for recorder in (*recorders, *self._student_rois):
            recorder.reset_data_buffer()

    @torch.no_grad()
    def _dry_run(self) -> tuple[dict[str, dict[str, str]], str]:
        """Run a step on a blank image, without a trace in state or RNG.

        Returns:
            Shapes of all loss arguments, and of the batches that student and teacher got.
        """
        state = copy.deepcopy(self.distiller.state_dict())
        training = self.training
        self.eval()
        try:
            with torch.random.fork_rng(devices=[]):
                inputs, samples = wiring.dry_run_input(self.data_preprocessor)
                theirs = self.teacher_input(inputs, samples)
                self._record(inputs, samples)
                hint = self.teacher_input.hint if inputs.shape != theirs.shape else ""
                found = wiring.check_losses(self.distiller, hint)
                return found, f"{list(inputs.shape)} to student, {list(theirs.shape)} to teacher"
        finally:
            self._forget_records()
            heads.forget_history(self.student)
            self.distiller.load_state_dict(state)
            self.train(training)

    def _log_setup(self, found: dict[str, dict[str, str]], batches: str) -> None:
        lines = ["Distillation:"]
        for who in ("teacher", "student"):
            model = getattr(self, who)
            lines.append(f"  {who}: {type(model).__name__}, {_millions(model)} parameters")
        lines.append(f"  teacher's input: {self.teacher_input.describe()}")
        if self.teacher_stage is not None:
            lines.append(f"  teacher's stages: {self.teacher_stage}")
        if len(self.distiller.connectors):
            lines.append(f"  connectors: {_millions(self.distiller.connectors)} parameters")
        for name, arguments in found.items():
            loss = self.distiller.distill_losses[name]
            weight = getattr(loss, "loss_weight", "not stated")
            lines.append(f"  {name}: {type(loss).__name__}, weight {weight}")
            sides = wiring.describe(self.distiller, name)
            lines += [f"    {a}: {sides[a]}, {shape}" for a, shape in arguments.items()]
        image = f"{wiring.SIDE} x {wiring.SIDE} pixels"
        lines.append(f"  shapes are those of one image of {image}: {batches}")
        print_log("\n".join(lines), logger="current")


def _check_options(
    distiller: dict[str, Any], teacher: Any, teacher_ckpt: str | None, kwargs: dict[str, Any]
) -> None:
    if distiller.get("distill_deliveries"):
        raise ValueError(
            "kd_det.RoITeacherDistill runs the student first, so there is nothing of the "
            "teacher's to deliver into it; remove distill_deliveries "
            f"{sorted(distiller['distill_deliveries'])} or use mmrazor.SingleTeacherDistill"
        )
    fixed = dict(teacher_trainable=False, student_trainable=True, calculate_student_loss=True)
    for option, value in fixed.items():
        if kwargs.get(option, value) != value:
            raise ValueError(
                "kd_det.RoITeacherDistill trains the student with its own losses beside a fixed "
                f"teacher: expected {option}={value}, found {kwargs[option]}"
            )
    if teacher_ckpt is None and not isinstance(teacher, nn.Module):
        raise ValueError(
            "kd_det.RoITeacherDistill expected teacher_ckpt, the file or URL of the teacher's "
            "weights, found None: a randomly initialised teacher teaches nothing"
        )


def _build(model: BaseModel | dict[str, Any]) -> BaseModel:
    # MMRazor's registry also understands dict(cfg_path='mmdet::...', pretrained=...).
    return model if isinstance(model, nn.Module) else RAZOR_MODELS.build(model)


def _check_pair(student: BaseModel, teacher: BaseModel) -> None:
    heads.require_two_stage(student, "student")
    heads.require_two_stage(teacher, "teacher")
    if heads.num_classes(student) != heads.num_classes(teacher):
        raise wiring.WiringError(
            f"the student has {heads.num_classes(student)} classes and the teacher "
            f"{heads.num_classes(teacher)}; both must be trained on the same classes"
        )


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
