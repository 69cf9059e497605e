"""Probes that run the teacher ahead of the student."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from mmdet.models.detectors import DetectionTransformer, SingleStageDetector, TwoStageDetector
from mmrazor.models.distillers import ConfigurableDistiller
from mmrazor.models.task_modules.recorder.base_recorder import BaseRecorder
from torch import Tensor, nn


class Probe:
    """Runs all of a teacher, a classifier; subclasses run a detector as far as losses read it.

    Attributes:
        name: Its name in a config.
        student_recorders: Recorders of the student that it needs.
    """

    name = "image"
    student_recorders: tuple[BaseRecorder, ...] = ()

    def run(self, teacher: Any, inputs: Tensor, data_samples: list | None) -> Any:
        """Run the teacher ahead of the student; returns what :meth:`run_after_student` needs.

        Args:
            teacher: The teacher, in eval mode.
            inputs: The teacher's own input ``[N, C, H, W]``.
            data_samples: Those of the student's batch.
        """
        return teacher(inputs, data_samples, mode="tensor")

    def student_context(
        self, student: Any, recorders: Iterable[BaseRecorder]
    ) -> AbstractContextManager[Any]:
        """The context of the student's forward pass under ``recorders``."""
        return nullcontext()

    def run_after_student(self, seen: Any) -> None:
        """Run what depends on the student's forward pass, after it."""

    def run_student_again(self, student: Any, seen: Any) -> None:
        """Run again what of the student losses read beside its own forward pass."""

    def distill_losses(
        self, distiller: ConfigurableDistiller, student: nn.Module
    ) -> dict[str, Tensor]:
        """Compute the distiller's losses of what both sides recorded."""
        return distiller.compute_distill_losses()


class FeatureProbe(Probe):
    """Backbone and neck alone."""

    name = "features"

    def run(self, teacher: Any, inputs: Tensor, data_samples: list | None) -> Any:
        """Run ``extract_feat``."""
        return teacher.extract_feat(inputs)


class DenseProbe(Probe):
    """Backbone, neck and dense head; of a two-stage detector, that of the RPN."""

    name = "dense"

    def run(self, teacher: Any, inputs: Tensor, data_samples: list | None) -> Any:
        """Run the detector as ``mode='tensor'`` does, without proposals and RoIs.

        Heads are called as modules, which ``mode='tensor'`` does not, so that recorders see them.
        """
        data_samples = _of_size(data_samples, inputs)
        if isinstance(teacher, TwoStageDetector):
            return teacher.rpn_head(teacher.extract_feat(inputs))
        if isinstance(teacher, SingleStageDetector):
            return teacher.bbox_head(teacher.extract_feat(inputs))
        if isinstance(teacher, DetectionTransformer):
            feats = teacher.extract_feat(inputs)
            return teacher.bbox_head(**teacher.forward_transformer(feats, data_samples))
        return super().run(teacher, inputs, data_samples)


def _of_size(data_samples: list | None, inputs: Tensor) -> list | None:
    """Copy data samples with the size of ``inputs``, which transformers read, where it differs."""
    size = tuple(inputs.shape[-2:])
    if data_samples is None or all(
        tuple(sample.metainfo.get("batch_input_shape", size)) == size for sample in data_samples
    ):
        return data_samples
    resized = [sample.new() for sample in data_samples]
    for sample in resized:
        sample.set_metainfo(dict(batch_input_shape=size))
    return resized
