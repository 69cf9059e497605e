"""Detectors whose decoder turns queries into objects."""

from __future__ import annotations

from typing import Any

from kd_det.pairing.families.base import Family


class Query(Family):
    """DETR, Conditional, Deformable and DAB-DETR, DINO, DDQ."""

    name = "query"
    # A decoder is of use with the encoder and queries that it was trained with.
    start = (
        "encoder",
        "decoder",
        "bbox_head",
        "query_embedding",
        "memory_trans_fc",
        "memory_trans_norm",
    )

    def describe(self, model: Any) -> dict[str, str]:
        """Describe the head, and the numbers of layers of encoder and decoder."""
        layers = [f"{name} of {getattr(model, name).num_layers}" for name in ("encoder", "decoder")]
        return {"head": f"{type(model.bbox_head).__name__}, {', '.join(layers)} layers"}
