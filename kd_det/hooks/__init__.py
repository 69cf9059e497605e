"""Hooks: when things happen."""

from kd_det.hooks.class_center_hook import ClassCenterHook
from kd_det.hooks.embedding_monitor_hook import EmbeddingMonitorHook
from kd_det.hooks.exact_resume_hook import ExactResumeHook
from kd_det.hooks.finite_loss_hook import FiniteLossHook, NonFiniteLossError
from kd_det.hooks.gradient_share_hook import GradientShareHook
from kd_det.hooks.loss_balance_hook import LossBalanceHook
from kd_det.hooks.loss_weight_hook import LossWeightHook
from kd_det.hooks.neck_fit_hook import NeckFitHook
from kd_det.hooks.step_time_hook import StepTimeHook
from kd_det.hooks.student_export_hook import StudentExportHook
from kd_det.hooks.student_hook import StudentHook
from kd_det.hooks.teacher_accuracy_hook import TeacherAccuracyError, TeacherAccuracyHook
from kd_det.hooks.zero_loss_hook import ZeroLossHook

__all__ = [
    "ClassCenterHook",
    "EmbeddingMonitorHook",
    "ExactResumeHook",
    "FiniteLossHook",
    "GradientShareHook",
    "LossBalanceHook",
    "LossWeightHook",
    "NeckFitHook",
    "NonFiniteLossError",
    "StepTimeHook",
    "StudentExportHook",
    "StudentHook",
    "TeacherAccuracyError",
    "TeacherAccuracyHook",
    "ZeroLossHook",
]
