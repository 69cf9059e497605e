"""Read and set the weights from which a detector's config starts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.runner.checkpoint import get_external_models, get_torchvision_models
from torch import nn

from kd_det.algorithms.checkpoint import SCHEME, read_weights
from kd_det.columns import aligned
from kd_det.pairing import PairingError
from kd_det.registry import as_list, type_name

# Names of tensors that a table lists for a part.
SHOWN = 6


def set_start(model_cfg: dict[str, Any], path: str, model: nn.Module, who: str = "student") -> str:
    """Let a detector start from a whole detector's weights; says how many of them fit.

    ``load_from`` is for a checkpoint of the whole distillation model, so ``init_cfg`` names them.

    Raises:
        PairingError: If no tensor fits.
        kd_det.algorithms.CheckpointError: If the file cannot be read.
    """
    model_cfg["init_cfg"] = dict(type="Pretrained", checkpoint=path)
    if "://" in path:
        return f"{who}: starts from {path}, which is read when training begins"
    state, _ = read_weights(path, who)
    own = model.state_dict()
    fitting = [key for key in own if key in state and state[key].shape == own[key].shape]
    if not fitting:
        raise PairingError(
            f"none of the {len(state)} weights in {path}, from which the {who} is to start "
            f"(load_from), fits the {who} {type(model).__name__}; expected names like "
            f"{next(iter(own))}, found {', '.join(list(state)[:3]) or 'none'}"
        )
    # Read like a teacher's, whatever its form.
    model_cfg["init_cfg"]["checkpoint"] = f"{SCHEME}{path}"
    return f"{who}: starts from {path} (load_from), {len(fitting)} of its {len(own)} tensors"


def loaded_table(model: nn.Module, path: str, who: str) -> str:
    """A row for each part of a detector: how many of its tensors a checkpoint has, and the others.

    Args:
        model: The detector; shapes are read, no values.
        path: File or URL, which is downloaded.
        who: ``'student'`` or ``'teacher'``, for messages.

    Raises:
        kd_det.algorithms.CheckpointError: If it cannot be read.
    """
    state, _ = read_weights(path, who)
    parts: dict[str, list[str | None]] = {}
    for name, value in model.state_dict().items():
        part, _, inside = name.partition(".")
        found = "missing" if name not in state else list(state[name].shape)
        fits = found == list(value.shape)
        left_out = None if fits else f"{inside or part} {list(value.shape)} (there: {found})"
        parts.setdefault(part, []).append(left_out)
    rows = [("part", "tensors", "loaded", "left out")]
    for part, tensors in parts.items():
        others = [each for each in tensors if each is not None]
        more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
        counts = str(len(tensors)), str(len(tensors) - len(others))
        rows.append((part, *counts, ", ".join(others[:SHOWN]) + more))
    return "\n".join(aligned(rows))


def find_downloads(model_cfg: Any) -> list[str]:
    """The URLs from which a config's pretrained weights are downloaded when training begins.

    Those that are in torch's folder of downloads already are left out.
    """
    urls = dict.fromkeys(_resolve(name) for name in _pretrained(model_cfg) if "://" in name)
    folder = Path(torch.hub.get_dir(), "checkpoints")
    return [url for url in urls if not (folder / url.rpartition("/")[2]).is_file()]


def find_files(model_cfg: Any) -> list[str]:
    """The files of pretrained weights that a config names."""
    return [name for name in _pretrained(model_cfg) if "://" not in name]


def _pretrained(model_cfg: Any) -> list[str]:
    """Files and URLs of the pretrained weights that a config names."""
    found = [init for part in nested_dicts(model_cfg) for init in pretrained_inits(part)]
    return [str(init["checkpoint"]).removeprefix(SCHEME) for init in found]


def _resolve(name: str) -> str:
    """The URL of a model of torchvision or of MMEngine's list."""
    scheme, _, model = name.partition("://")
    if scheme in ("torchvision", "modelzoo"):
        return str(get_torchvision_models().get(model, name))
    if scheme in ("open-mmlab", "openmmlab"):
        return str(get_external_models().get(model, name))
    return name


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
