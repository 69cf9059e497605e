"""Distillation losses: one file each, a pure function and the thin module around it.

All speak one dialect: ``s_*`` is the student's tensor, ``t_*`` the teacher's, ``labels`` the
classes. Modules return a scalar with ``loss_weight`` applied once, compute in float32 under
AMP, keep the graph on empty input and return no NaN for finite input.
"""

from kd_det.losses.hcl import HCLLoss, hcl_loss
from kd_det.losses.nd import CentersNotSetError, NDLoss, nd_loss

__all__ = ["CentersNotSetError", "HCLLoss", "NDLoss", "hcl_loss", "nd_loss"]
