"""Checks of the names by which recorders, connectors and losses of a distiller meet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmrazor.models.distillers import ConfigurableDistiller
from torch import nn

from kd_det.errors import UserError


class WiringError(UserError, ValueError):
    """Recorders, connectors and losses of a distiller do not fit together."""


def check_names(distiller: Mapping[str, Any], student: nn.Module, teacher: nn.Module) -> None:
    """Check the names of modules, recorders, connectors and losses in a distiller's config.

    Raises:
        WiringError: For a name that leads nowhere; says which names are available.
    """
    _check_losses(distiller)
    for who, model in (("student", student), ("teacher", teacher)):
        check_sources(distiller.get(f"{who}_recorders") or {}, model, who)


def check_sources(recorders: Mapping[str, Any], model: nn.Module, who: str) -> None:
    """Raise :class:`WiringError` if a module recorder names a module that ``model`` lacks."""
    for recorder, cfg in recorders.items():
        for source in _module_sources(cfg):
            require_module(model, source, who, f"{who} recorder '{recorder}' has source")


def _module_sources(recorder: Mapping[str, Any]) -> Iterator[str]:
    """Modules that a recorder's config names, also those of the levels of a pyramid."""
    for level in recorder.get("levels", ()):
        yield from [level] if isinstance(level, str) else _module_sources(level)
    if str(recorder.get("type", "")).split(".")[-1].startswith("Module"):
        yield recorder.get("source", "")


def require_module(model: nn.Module, name: str, who: str, named_by: str) -> None:
    """Raise :class:`WiringError` if ``model`` lacks a module; says which may have been meant."""
    if name and name in dict(model.named_modules()):
        return
    # The siblings of `name` and of the modules that it would be in, and all at the top.
    parents = name.split(".")[:-1]
    starts = [".".join(parents[: i + 1]) for i in range(len(parents))]
    near = sorted(
        found
        for found, _ in model.named_modules()
        if found
        and found.count(".") <= len(parents)
        and ("." not in found or found.startswith(tuple(starts)))
    )
    raise WiringError(
        f"{named_by} '{name}', but the {who} {type(model).__name__} has no such module; it has "
        f"{', '.join(near[:12])}"
    )


def _check_losses(distiller: Mapping[str, Any]) -> None:
    losses = distiller.get("distill_losses") or {}
    mappings = distiller.get("loss_forward_mappings") or {}
    for name in losses:
        if "loss" not in name:
            raise WiringError(
                f"MMEngine sums what has 'loss' in its name; expected such a name, found '{name}'"
            )
        if name not in mappings:
            raise WiringError(
                f"distillation loss '{name}' has no entry in loss_forward_mappings, which has "
                f"{sorted(mappings)}; it would never be computed"
            )
    for name, arguments in mappings.items():
        if name not in losses:
            raise WiringError(
                f"loss_forward_mappings names '{name}', but distill_losses has {sorted(losses)}"
            )
        for argument, record in arguments.items():
            side = "student" if record.get("from_student") else "teacher"
            for kind, known in (
                ("recorder", distiller.get(f"{side}_recorders") or {}),
                ("connector", distiller.get("connectors") or {}),
            ):
                if record.get(kind) is not None and record[kind] not in known:
                    raise WiringError(
                        f"argument '{argument}' of distillation loss '{name}' names {side} "
                        f"{kind} '{record[kind]}', but there are {sorted(known)}"
                    )


def describe_arguments(distiller: ConfigurableDistiller, loss_name: str) -> dict[str, str]:
    """Say where each argument of a loss comes from."""
    described = {}
    for argument, record in distiller.loss_forward_mappings[loss_name].items():
        side = "student" if record["from_student"] else "teacher"
        recorders = getattr(distiller, f"{side}_recorders").recorders
        text = f"{side} {recorders[record['recorder']].source}"
        if record.get("connector"):
            connector = distiller.connectors[record["connector"]]
            text += f" -> {record['connector']} ({type(connector).__name__})"
        described[argument] = text
    return described
