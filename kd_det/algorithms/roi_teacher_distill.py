"""Two-stage distillation in which teacher and student see the same RoIs."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from mmengine.model import BaseModel
from mmrazor.models.task_modules import ModuleInputsRecorder, ModuleOutputsRecorder
from mmrazor.models.task_modules.recorder.base_recorder import BaseRecorder
from mmrazor.models.utils import add_prefix
from torch import Tensor

from kd_det.algorithms import heads, roi, wiring
from kd_det.algorithms.empty import without_rois
from kd_det.algorithms.fixed_teacher_distill import FixedTeacherDistill, build
from kd_det.algorithms.speed import FEATURES, Speed
from kd_det.algorithms.teacher_input import TeacherInput
from kd_det.errors import InvalidInputError
from kd_det.recorders import parts, paused, recording
from kd_det.registry import MODELS

OF_MODULES = (ModuleInputsRecorder, ModuleOutputsRecorder)


@MODELS.register_module()
class RoITeacherDistill(FixedTeacherDistill):
    """:class:`FixedTeacherDistill` for two-stage detectors with RoI box heads.

    One step: the teacher, in eval mode and without gradient, computes its pyramid; the student
    computes its own losses on the RoIs that it samples, and the teacher scores the same RoIs, those
    of each stage where the student is a cascade, unless no loss reads it; the distiller hands
    what recorders kept to connectors and losses. The teacher's RPN, samplers and losses
    never run. Its input is that of its own data preprocessor, converted from the student's batch
    (:class:`~kd_det.algorithms.teacher_input.TeacherInput`).

    Args:
        distiller: Config of MMRazor's ``ConfigurableDistiller``, with any of its recorders,
            connectors and losses; no deliveries.
        teacher: Config of the teacher detector, or the detector.
        architecture: Config of the student detector, or the detector.
        teacher_ckpt: As in :class:`FixedTeacherDistill`.
        inherit: As in :class:`FixedTeacherDistill`.
        teacher_stage: Which stages of a teacher that is a cascade score the student's RoIs.
            ``'same'``: stage i those of the student's stage i, the default where both are
            cascades of equally many stages. ``'last'``: the last stage, the default otherwise.
            ``'mean'``: all stages; recorders find the mean of their embeddings and logits as
            outputs 0 and 1 of ``roi_head.stage_mean``. With the latter two, or a teacher with
            one box head, a teacher's record i (``record_idx``) is of the student's stage i.
        speed: As in :class:`FixedTeacherDistill`.

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
        speed: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.speed = Speed.of(speed)
        _check_deliveries(distiller)
        self._check_options(distiller, teacher, teacher_ckpt, kwargs)
        student, teacher = build(architecture), build(teacher)
        _check_pair(student, teacher)
        self.teacher_stage = heads.choose_stage(teacher_stage, student, teacher)
        if self.teacher_stage == "mean":
            heads.add_stage_mean(teacher)
        super().__init__(distiller, teacher, student, teacher_ckpt, inherit, speed, **kwargs)

    def _set_up(self) -> None:
        self.teacher_input = TeacherInput(self.data_preprocessor, self.teacher.data_preprocessor)
        names = heads.roi_extractors(self.student)
        self._student_rois = [ModuleInputsRecorder(name) for name in names]
        for recorder in self._student_rois:
            recorder.initialize(self.student)
        shapes, batches = self._dry_run()
        more = [f"teacher's input: {self.teacher_input.describe()}"]
        if self.teacher_stage is not None:
            more.append(f"teacher's stages: {self.teacher_stage}")
        image = f"{wiring.SIDE} x {wiring.SIDE} pixels"
        more.append(f"shapes are those of one image of {image}: {batches}")
        self._log_setup(shapes, more)

    def train(self, mode: bool = True) -> RoITeacherDistill:
        """Set the mode of student and connectors; the teacher stays in eval mode."""
        super().train(mode)
        # MMRazor's validation loop, which calls this first, gave the teacher the student's.
        self.teacher.data_preprocessor = self.teacher_input.theirs
        return self

    def loss(self, batch_inputs: Tensor, data_samples: list | None = None) -> dict[str, Tensor]:
        """Losses of one batch, keys prefixed ``student.`` and ``distill.``."""
        batch_inputs = self.speed.layout(batch_inputs)
        losses = add_prefix(self._record(batch_inputs, data_samples), "student")
        if not self.distillation_stopped:
            losses.update(add_prefix(self._distill_losses(), "distill"))
        self._forget_records()
        return losses

    def _distill_losses(self) -> dict[str, Tensor]:
        rois = self._rois()
        if len(rois) < len(self._student_rois) or not all(map(len, rois)):
            return without_rois(self.distiller, self.student)
        return self._compute_distill_losses()

    def _record(self, batch_inputs: Tensor, data_samples: list | None) -> dict[str, Tensor]:
        """Run both models under their recorders; returns the student's own losses."""
        branch: roi.BoxBranch | None = None
        if not self.distillation_stopped:
            # Ahead of the student, whose maps are kept for its backward pass: less at once.
            with self._teacher_turn(), recording(self._teacher_recorders):
                inputs = self.speed.layout(self.teacher_input(batch_inputs, data_samples))
                branch = roi.BoxBranch(self.teacher, inputs, self.teacher_stage)

        recorders = [*self.distiller.student_recorders.recorders.values(), *self._student_rois]
        with (
            recording(recorders),
            roi.samplers_unrecorded(self.student, recorders),
            self._scoring(branch, recorders),
        ):
            losses = self.student(batch_inputs, data_samples, mode="loss")
        if branch is not None:
            self._await_teacher(branch.feats)
        return losses

    @contextmanager
    def _scoring(
        self, branch: roi.BoxBranch | None, recorders: Sequence[BaseRecorder]
    ) -> Iterator[None]:
        """Let the teacher score the RoIs of each stage when the student's box head gets them.

        That is before the student makes features of them: those of both sides never stand in
        memory together.
        """
        if branch is None or not self.teacher_scores_rois:
            yield
            return

        def score(index: int, inputs: tuple) -> None:
            # Neither what a sampler tries, nor a later call of a module that is shared.
            recorder = self._student_rois[index]
            if recorder.recording and not recorder.data_buffer:
                self._await_teacher(branch.feats)
                with (
                    torch.no_grad(),
                    self.speed.teacher_autocast(branch.feats[0].device),
                    paused(recorders),
                    recording(self._teacher_recorders, go_on=True),
                ):
                    branch.score(inputs[1], index)

        with ExitStack() as stack:
            for index, recorder in enumerate(self._student_rois):
                extractor = self.student.get_submodule(recorder.source)
                hook = partial(lambda i, _, inputs: score(i, inputs), index)
                stack.enter_context(extractor.register_forward_pre_hook(hook))
            yield

    @property
    def teacher_scores_rois(self) -> bool:
        """Whether a loss may read more of the teacher than its backbone and neck."""
        mappings = self.distiller.loss_forward_mappings.values()
        arguments = [record for loss in mappings for record in loss.values()]
        recorders = self.distiller.teacher_recorders.recorders
        read = [recorders[r["recorder"]] for r in arguments if not r["from_student"]]
        return not all(
            isinstance(part, OF_MODULES) and part.source.split(".")[0] in FEATURES
            for recorder in read
            for part in parts(recorder)
        )

    def _rois(self) -> list[Tensor]:
        """RoIs ``[n, 5]`` of each stage of the student; mmdet may break a cascade off."""
        # The first call is the box branch's; others may share the module.
        recorded = [recorder for recorder in self._student_rois if recorder.data_buffer]
        return [recorder.get_record_data(data_idx=1) for recorder in recorded]

    def _forget_records(self) -> None:
        super()._forget_records()
        for recorder in self._student_rois:
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


def _check_deliveries(distiller: dict[str, Any]) -> None:
    if distiller.get("distill_deliveries"):
        raise InvalidInputError(
            "kd_det.RoITeacherDistill runs the student first, so there is nothing of the "
            "teacher's to deliver into it; remove distill_deliveries "
            f"{sorted(distiller['distill_deliveries'])} or use mmrazor.SingleTeacherDistill"
        )


def _check_pair(student: BaseModel, teacher: BaseModel) -> None:
    heads.require_two_stage(student, "student")
    heads.require_two_stage(teacher, "teacher")
    if heads.num_classes(student) != heads.num_classes(teacher):
        raise wiring.WiringError(
            f"the student has {heads.num_classes(student)} classes and the teacher "
            f"{heads.num_classes(teacher)}; both must be trained on the same classes"
        )
