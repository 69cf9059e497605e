"""Algorithms: how teacher and student run on one batch."""

from kd_det.algorithms.checkpoint import CheckpointError
from kd_det.algorithms.dense import BoxesRecorder, CrossHead, PositivesRecorder
from kd_det.algorithms.query import MemoryRecorder, SharedQueriesRecorder
from kd_det.algorithms.teacher_distill import (
    FixedTeacherDistill,
    RoITeacherDistill,
    TeacherDistill,
)
from kd_det.algorithms.wiring import WiringError

__all__ = [
    "BoxesRecorder",
    "CheckpointError",
    "CrossHead",
    "FixedTeacherDistill",
    "MemoryRecorder",
    "PositivesRecorder",
    "RoITeacherDistill",
    "SharedQueriesRecorder",
    "TeacherDistill",
    "WiringError",
]
