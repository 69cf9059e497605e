"""Algorithms: what runs teacher and student on one batch."""

from kd_det.algorithms.checkpoint import CheckpointError
from kd_det.algorithms.fixed_teacher_distill import FixedTeacherDistill
from kd_det.algorithms.roi_teacher_distill import RoITeacherDistill
from kd_det.algorithms.wiring import WiringError

__all__ = ["CheckpointError", "FixedTeacherDistill", "RoITeacherDistill", "WiringError"]
