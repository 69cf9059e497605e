"""Read and set the weights from which a detector's config starts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from kd_det.algorithms.checkpoint import SCHEME, read_weights
from kd_det.pairing import PairingError
from kd_det.registry import as_list, type_name


def set_start(model_cfg: dict[str, Any], path: str, model: nn.Module) -> str:
    """Let the student start from a whole detector's weights; says how many of them fit.

    ``load_from`` is for a checkpoint of the whole distillation model, so ``init_cfg`` names them.

    Raises:
        PairingError: If no tensor fits.
        kd_det.algorithms.CheckpointError: If the file cannot be read.
    """
    model_cfg["init_cfg"] = dict(type="Pretrained", checkpoint=path)
    if "://" in path:
        return f"student: starts from {path}, which is read when training begins"
    state, _ = read_weights(path, "student")
    own = model.state_dict()
    fitting = [key for key in own if key in state and state[key].shape == own[key].shape]
    if not fitting:
        raise PairingError(
            f"none of the {len(state)} weights in {path}, which the student's config loads "
            f"(load_from), fits the student {type(model).__name__}; expected names like "
            f"{next(iter(own))}, found {', '.join(list(state)[:3]) or 'none'}"
        )
    # Read like a teacher's, whatever its form.
    model_cfg["init_cfg"]["checkpoint"] = f"{SCHEME}{path}"
    return f"student: starts from {path} (load_from), {len(fitting)} of its {len(own)} tensors"


def drop_downloads(model_cfg: Any) -> None:
    """Drop pretrained weights, which the teacher's checkpoint replaces."""
    for part in nested_dicts(model_cfg):
        if pretrained_inits(part):
            part["init_cfg"] = None
        if "pretrained" in part:
            part["pretrained"] = None if isinstance(part["pretrained"], str) else False


def describe_start(model_cfg: Any) -> str:
    """The sources of pretrained weights in a config; ``'random'`` if there are none."""
    whole = pretrained_inits(model_cfg)
    found = whole or [init for part in nested_dicts(model_cfg) for init in pretrained_inits(part)]
    names = [str(init.get("checkpoint") or init.get("type")) for init in found]
    return ", ".join(name.removeprefix(SCHEME) for name in names) or "random"


def pretrained_inits(part: dict[str, Any]) -> list[dict[str, Any]]:
    """The ``init_cfg`` entries of a module's config that load weights; PVT's have no type."""
    return [
        each
        for each in as_list(part.get("init_cfg"))
        if isinstance(each, dict)
        and ("type" in each or "checkpoint" in each)
        and type_name(each) in ("Pretrained", "PretrainedInit", "None")
    ]


def nested_dicts(part: Any) -> Iterator[dict[str, Any]]:
    """A config and all dicts in it, parents first."""
    if isinstance(part, dict):
        yield part
        part = list(part.values())
    for each in part if isinstance(part, (list, tuple)) else ():
        yield from nested_dicts(each)
