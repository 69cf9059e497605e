"""Recorders and connectors for dense heads, beside MMRazor's.

=================== ===============================================================================
in a config         purpose
=================== ===============================================================================
``kd_det.Boxes``    recorder: the boxes that a head predicts, decoded
``kd_det.Positives`` recorder: the positions that a head's own assigner made positive
``kd_det.CrossHead`` connector: the student's features run on through the teacher's head
=================== ===============================================================================
"""

from kd_det.algorithms.dense.boxes import BoxesRecorder, decode_boxes
from kd_det.algorithms.dense.cross_head import CrossHead
from kd_det.algorithms.dense.layers import (
    Layer,
    branch_layers,
    class_layers,
    depth_of,
    pyramid_recorder,
)
from kd_det.algorithms.dense.positives import PositivesRecorder
from kd_det.algorithms.dense.teacher import is_dense, rules, teacher_positives

__all__ = [
    "BoxesRecorder",
    "CrossHead",
    "Layer",
    "PositivesRecorder",
    "branch_layers",
    "class_layers",
    "decode_boxes",
    "depth_of",
    "is_dense",
    "pyramid_recorder",
    "rules",
    "teacher_positives",
]
