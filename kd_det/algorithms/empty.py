"""A step on which the student sampled no RoI at all, or none for some stage of a cascade."""

from __future__ import annotations

from typing import Any

import torch
from mmrazor.models.distillers import ConfigurableDistiller
from torch import Tensor, nn


def without_rois(distiller: ConfigurableDistiller, student: nn.Module) -> dict[str, Tensor]:
    """Distillation losses where RoI records are empty, or missing since mmdet skips its loss.

    A loss whose arguments are all empty or missing becomes a zero that still reaches all
    parameters behind them, so that ranks with RoIs do not wait for this one's gradients; many a
    loss would divide by the number of RoIs. If nothing was recorded, as for the later stages of
    a cascade that mmdet broke off, that is every parameter of the student and of the loss's
    connectors. The others (on the pyramid, or on a stage with RoIs) are computed as always.
    """
    losses = {}
    for name, arguments in distiller.loss_forward_mappings.items():
        values = {key: _value(distiller, record) for key, record in arguments.items()}
        if all(v is None or (torch.is_tensor(v) and len(v) == 0) for v in values.values()):
            reached = [v for v in values.values() if v is not None]
            reached = reached or _parameters(distiller, arguments, student)
            losses[name] = torch.stack([0 * each.sum().float() for each in reached]).sum()
        else:
            losses[name] = distiller.distill_losses[name](**values)
    return losses


def _value(distiller: ConfigurableDistiller, record: dict[str, Any]) -> Any:
    side = distiller.student_recorders if record["from_student"] else distiller.teacher_recorders
    recorded = side.get_recorder(record["recorder"]).data_buffer
    if len(recorded) <= record.get("record_idx", 0):
        return None
    return distiller.get_record(**record)


def _parameters(
    distiller: ConfigurableDistiller, arguments: dict[str, dict[str, Any]], student: nn.Module
) -> list[Tensor]:
    names = {record["connector"] for record in arguments.values() if record.get("connector")}
    modules = [student, *(distiller.connectors[name] for name in sorted(names))]
    return [p for module in modules for p in module.parameters() if p.requires_grad]
