"""The probe of two-stage detectors: the teacher scores the RoIs that the student sampled."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch
from mmrazor.models.distillers import ConfigurableDistiller
from mmrazor.models.task_modules import ModuleInputsRecorder
from mmrazor.models.task_modules.recorder.base_recorder import BaseRecorder
from torch import Tensor, nn

from kd_det.algorithms import heads, roi
from kd_det.algorithms.probes.forward import Probe
from kd_det.algorithms.teacher import FEATURES


class RoIProbe(Probe):
    """The pyramid, then the box heads on the student's RoIs.

    No RoI is scored where ``read``, the parts of the teacher that losses read, has no box heads.

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

    def student_context(
        self, student: nn.Module, recorders: Iterable[BaseRecorder]
    ) -> AbstractContextManager[Any]:
        """Keep what the student's samplers score out of ``recorders``."""
        return roi.samplers_unrecorded(student, recorders)

    def run_after_student(self, seen: roi.BoxBranch) -> None:
        """Score the RoIs of each stage of the student."""
        for stage, rois in enumerate(self.rois if self.scores else ()):
            seen.score(rois, stage)

    @property
    def rois(self) -> list[Tensor]:
        """RoIs ``[n, 5]`` of each stage of the student; mmdet may break a cascade off."""
        # The first call is the box branch's; others, a mask branch's, may share the module.
        recorded = [recorder for recorder in self.student_recorders if recorder.data_buffer]
        return [recorder.get_record_data(data_idx=1) for recorder in recorded]

    def distill_losses(
        self, distiller: ConfigurableDistiller, student: nn.Module
    ) -> dict[str, Tensor]:
        """Compute all losses; zeros in place of those whose records are empty or missing.

        Records are empty if the student sampled no RoI, and missing for the later stages of a
        cascade that mmdet broke off. Many a loss would divide by the number of RoIs.
        """
        rois = self.rois
        if len(rois) == len(self.student_recorders) and all(map(len, rois)):
            return super().distill_losses(distiller, student)
        losses = {}
        for name, arguments in distiller.loss_forward_mappings.items():
            values = {key: _value(distiller, record) for key, record in arguments.items()}
            if all(v is None or (torch.is_tensor(v) and len(v) == 0) for v in values.values()):
                # A zero that reaches all parameters behind the records, or that could be there,
                # so that ranks with RoIs do not wait for the gradients of this one.
                reached = [v for v in values.values() if v is not None]
                reached = reached or _parameters(distiller, arguments, student)
                losses[name] = torch.stack([0 * each.sum().float() for each in reached]).sum()
            else:
                losses[name] = distiller.distill_losses[name](**values)
        return losses


def _value(distiller: ConfigurableDistiller, record: dict[str, Any]) -> Any:
    """The record that a loss's argument reads, None if it is missing."""
    side = distiller.student_recorders if record["from_student"] else distiller.teacher_recorders
    recorded = side.get_recorder(record["recorder"]).data_buffer
    if len(recorded) <= record.get("record_idx", 0):
        return None
    return distiller.get_record(**record)


def _parameters(
    distiller: ConfigurableDistiller, arguments: dict[str, dict[str, Any]], student: nn.Module
) -> list[Tensor]:
    """Parameters of the student and of the connectors of a loss's arguments."""
    names = {record["connector"] for record in arguments.values() if record.get("connector")}
    modules = [student, *(distiller.connectors[name] for name in sorted(names))]
    return [p for module in modules for p in module.parameters() if p.requires_grad]
