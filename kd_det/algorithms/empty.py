"""A step on which the student sampled no RoI at all."""

from __future__ import annotations

from typing import Any

import torch
from mmrazor.models.distillers import ConfigurableDistiller
from torch import Tensor


def without_rois(distiller: ConfigurableDistiller) -> dict[str, Tensor]:
    """Distillation losses where RoI records are empty, or missing since mmdet skips its loss.

    A loss whose arguments are all empty or missing becomes a zero that still reaches all
    parameters behind them, so that ranks with RoIs do not wait for this one's gradients; many a
    loss would divide by the number of RoIs. The others (on the pyramid) are computed as always.
    """
    losses = {}
    for name, arguments in distiller.loss_forward_mappings.items():
        values = {key: _value(distiller, record) for key, record in arguments.items()}
        if all(v is None or (torch.is_tensor(v) and len(v) == 0) for v in values.values()):
            zeros = [0 * v.sum() for v in values.values() if v is not None]
            losses[name] = torch.stack([zero.float() for zero in zeros]).sum()
        else:
            losses[name] = distiller.distill_losses[name](**values)
    return losses


def _value(distiller: ConfigurableDistiller, record: dict[str, Any]) -> Any:
    side = distiller.student_recorders if record["from_student"] else distiller.teacher_recorders
    if not side.get_recorder(record["recorder"]).data_buffer:
        return None
    return distiller.get_record(**record)
