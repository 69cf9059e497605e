"""Registers what works without MMEngine and so does not register itself: losses and connectors."""

from __future__ import annotations

from kd_det import connectors, losses
from kd_det.registry import MODELS

for module in (
    losses.BinaryKDLoss,
    losses.BoxKDLoss,
    losses.CenterContrastLoss,
    losses.CenterCosineLoss,
    losses.CWDLoss,
    losses.DKDLoss,
    losses.FeatureNormLoss,
    losses.HCLLoss,
    losses.LDLoss,
    losses.NDLoss,
    losses.QueryBoxLoss,
    losses.QueryKDLoss,
    connectors.EmbeddingConnector,
    connectors.PyramidConnector,
    connectors.QueryConnector,
    connectors.ReviewFusion,
):
    MODELS.register_module(module=module)
