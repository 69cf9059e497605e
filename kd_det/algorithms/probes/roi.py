"""The probe of two-stage detectors: the teacher scores the RoIs that the student sampled."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import AbstractContextManager
from typing import Any

from mmrazor.models.task_modules import ModuleInputsRecorder
from mmrazor.models.task_modules.recorder.base_recorder import BaseRecorder
from torch import Tensor, nn

from kd_det.algorithms import heads, roi
from kd_det.algorithms.probes.forward import Probe
from kd_det.algorithms.teacher import FEATURES


class RoIProbe(Probe):
    """The pyramid, then the box heads on the student's RoIs.

    Args:
        student: The student.
        teacher: The teacher.
        teacher_stage: Which of a teacher's stages score RoIs, see
            :func:`kd_det.algorithms.heads.choose_stage`.
        read: Parts of the teacher that losses read; where these are backbone and neck alone, no
            RoI is scored.

    Raises:
        TypeError: If a side is no two-stage detector with a supported head.
        kd_det.algorithms.WiringError: If the two have other numbers of classes.
    """

    name = "roi"

    def __init__(
        self, student: Any, teacher: Any, teacher_stage: str | None, read: Collection[str]
    ) -> None:
        heads.require_pair(student, teacher)
        self.teacher_stage = teacher_stage
        self.scores = not set(read) <= {*FEATURES, "rpn_head"}
        self.runs_rpn = "rpn_head" in read
        recorders = tuple(map(ModuleInputsRecorder, heads.roi_extractors(student)))
        for recorder in recorders:
            recorder.initialize(student)
        self.student_recorders = recorders

    def run(self, teacher: Any, inputs: Tensor, data_samples: list | None) -> roi.BoxBranch:
        """Compute the pyramid."""
        branch = roi.BoxBranch(teacher, inputs, self.teacher_stage)
        if self.runs_rpn:
            teacher.rpn_head(branch.feats)
        return branch

    def during(
        self, student: nn.Module, recorders: Iterable[BaseRecorder]
    ) -> AbstractContextManager[Any]:
        """Keep out of ``recorders`` what the student's samplers score."""
        return roi.samplers_unrecorded(student, recorders)

    def follow(self, seen: roi.BoxBranch) -> None:
        """Score the RoIs of each stage of the student."""
        for stage, rois in enumerate(self.rois if self.scores else ()):
            seen.score(rois, stage)

    @property
    def rois(self) -> list[Tensor]:
        """RoIs ``[n, 5]`` of each stage of the student; mmdet may break a cascade off."""
        # The first call is the box branch's; others, a mask branch's, may share the module.
        recorded = [recorder for recorder in self.student_recorders if recorder.data_buffer]
        return [recorder.get_record_data(data_idx=1) for recorder in recorded]

    @property
    def lacks_rois(self) -> bool:
        """Whether the student sampled no RoI, or none for some stage."""
        rois = self.rois
        return len(rois) < len(self.student_recorders) or not all(map(len, rois))
