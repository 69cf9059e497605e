"""The text that says how teacher and student are wired, logged when the model is built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from kd_det.algorithms.wiring import describe_arguments


def describe(model: Any, shapes: Mapping[str, Mapping[str, str]], batches: str) -> str:
    """Describe a :class:`kd_det.TeacherDistill`, with the results of its dry run.

    Lists both models, and the origin (and shape, where known) of each loss argument.
    """
    distiller = model.distiller
    lines = ["Distillation:"]
    for who in ("teacher", "student"):
        side = getattr(model, who)
        lines.append(f"  {who}: {type(side).__name__}, {_millions(side)} parameters")
    if len(distiller.connectors):
        lines.append(f"  connectors: {_millions(distiller.connectors)} parameters")
    for name in distiller.loss_forward_mappings:
        loss = distiller.distill_losses[name]
        weight = getattr(loss, "loss_weight", "not stated")
        lines.append(f"  {name}: {type(loss).__name__}, weight {weight}")
        for argument, source in describe_arguments(distiller, name).items():
            shape = shapes.get(name, {}).get(argument)
            lines.append(f"    {argument}: {source}{f', {shape}' if shape else ''}")
    lines += [
        f"  teacher's input: {model.teacher_input.describe()}",
        f"  probe: {model.probe.name}",
        *([f"  teacher's stages: {model.teacher_stage}"] if model.teacher_stage else []),
        f"  {batches}",
        f"  speed: {model.speed}",
    ]
    return "\n".join(lines)


def _millions(module: nn.Module) -> str:
    return f"{sum(p.numel() for p in module.parameters()) / 1e6:.2f} M"
