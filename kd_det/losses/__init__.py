"""Distillation losses: one file each, a pure function and the thin module around it.

They need torch alone. Names of arguments are the same in all of them: ``s_*`` is the student's
tensor, ``t_*`` the teacher's, ``labels`` the classes. Modules return a scalar with ``loss_weight``
applied once, compute in float32 under AMP, keep the graph on empty input and return no NaN for
finite input.
"""

from __future__ import annotations

from kd_det.losses.binary_kd import BinaryKDLoss, binary_kd_loss
from kd_det.losses.box_kd import BoxKDLoss, box_kd_loss, overlap_loss
from kd_det.losses.center_contrast import CenterContrastLoss, center_contrast_loss
from kd_det.losses.center_cosine import CenterCosineLoss, center_cosine_loss
from kd_det.losses.class_means import CentersNotSetError
from kd_det.losses.cwd import CWDLoss, cwd_loss
from kd_det.losses.dkd import DKDLoss, dkd_loss
from kd_det.losses.feature_norm import FeatureNormLoss, feature_l2_loss, sifn_loss
from kd_det.losses.hcl import HCLLoss, hcl_loss
from kd_det.losses.ld import LDLoss, ld_loss, valuable_region
from kd_det.losses.nd import NDLoss, nd_loss
from kd_det.losses.query_box import QueryBoxLoss, query_box_loss
from kd_det.losses.query_kd import QueryKDLoss, query_kd_loss

__all__ = [
    "BinaryKDLoss",
    "BoxKDLoss",
    "CWDLoss",
    "CenterContrastLoss",
    "CenterCosineLoss",
    "CentersNotSetError",
    "DKDLoss",
    "FeatureNormLoss",
    "HCLLoss",
    "LDLoss",
    "NDLoss",
    "QueryBoxLoss",
    "QueryKDLoss",
    "binary_kd_loss",
    "box_kd_loss",
    "center_contrast_loss",
    "center_cosine_loss",
    "cwd_loss",
    "dkd_loss",
    "feature_l2_loss",
    "hcl_loss",
    "ld_loss",
    "nd_loss",
    "overlap_loss",
    "query_box_loss",
    "query_kd_loss",
    "sifn_loss",
    "valuable_region",
]
