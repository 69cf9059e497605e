"""Weights of student and teacher: strict loading, and a digest of their content."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.runner.checkpoint import CheckpointLoader
from safetensors.torch import load_file
from torch import nn

from kd_det.errors import UserError

SHOWN_KEYS = 10
# Where an MMRazor algorithm keeps its student.
STUDENT_PREFIX = "architecture."
# Where semi-supervised training (mmdet's SemiBaseDetector) keeps its two models; the averaged one,
# which it evaluates, is its teacher.
SEMI_PREFIXES = ("teacher.", "student.")
# Where a checkpoint keeps the weights: MMEngine, detectron2 and DETR, torch's tutorials, averages.
STATES = ("state_dict", "model", "model_state_dict", "ema_state_dict", "model_ema")
# What a file that is no checkpoint begins with, and how it came there.
NO_CHECKPOINT = {
    rb"\Z": "it is empty, as a full disk or an interrupted download leaves it; get the file again",
    rb"version https://git-lfs": "it is a git-lfs pointer, not the file itself; run 'git lfs pull' "
    "in its repository",
    rb"\s*<(!doctype|html|\?xml)": "it is a web page, as a download leaves it that needs a log-in "
    "or another link; download the file itself",
}
# Of a path in a config: the file is read by `read_weights` where MMEngine reads a checkpoint.
SCHEME = "kd_det:"


class CheckpointError(UserError, RuntimeError):
    """A checkpoint cannot be read or does not fit the model it is for."""


def _read(path: str) -> Any:
    if path.endswith(".safetensors") and "://" not in path:
        return load_file(path)
    return CheckpointLoader.load_checkpoint(path, map_location="cpu")


@CheckpointLoader.register_scheme(prefixes=SCHEME)
def load_any_weights(path: str, map_location: Any = None) -> dict[str, Any]:
    """Read ``kd_det:PATH`` for MMEngine: a checkpoint of any form :func:`read_weights` knows."""
    state, meta = read_weights(path.removeprefix(SCHEME), "student")
    return dict(state_dict=state, meta=meta)


def _explain(error: Exception) -> str:
    """Say in a line why a file cannot be read, without torch's advice to load it unsafely."""
    text = str(error).strip() or repr(error)
    if "weights_only" in text:
        found = re.search(r"(Unsupported [^\n]*|WeightsUnpickler error:\s*[^\n]+)", text)
        text = " ".join(found[0].split()) if found else "more than weights"
    return text.splitlines()[0]


def read_weights(path: str | Path, who: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the weights of one model from a checkpoint of any common form.

    Of a distillation run's checkpoint these are its student's, of semi-supervised training's the
    averaged model's. :data:`STATES` lists the keys under which weights are looked for; prefixes
    of wrappers (``module.``) are dropped.

    Args:
        path: A checkpoint, as file or URL. A ``.safetensors`` file holds weights alone.
        who: ``'student'`` or ``'teacher'``, for messages.

    Returns:
        The weights by name, and the ``meta`` of the checkpoint.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it holds something else than weights, or cannot be downloaded.
    """
    path = str(path)
    if "://" not in path:
        _require_checkpoint(Path(path), who)
    try:
        checkpoint = _read(path)
    except OSError as error:
        if "://" not in path:
            raise
        raise CheckpointError(
            f"the {who}'s checkpoint {path} cannot be downloaded ({_explain(error)}); give a file, "
            "or a URL that can be reached from here"
        ) from error
    except Exception as error:  # the restricted unpickler fails in many ways on arbitrary bytes
        reason = _explain(error)
        raise CheckpointError(
            f"the {who}'s checkpoint {path} cannot be read: expected a file of weights written by "
            f"torch.save (or safetensors), found something else ({type(error).__name__}: {reason})"
        ) from error
    if not isinstance(checkpoint, Mapping):
        raise CheckpointError(
            f"the {who}'s checkpoint {path}: expected a dict of weights, found "
            f"{type(checkpoint).__name__}"
        )
    found = [checkpoint[key] for key in STATES if isinstance(checkpoint.get(key), Mapping)]
    meta = checkpoint.get("meta")
    return _of_one_model(found[0] if found else checkpoint), meta if isinstance(meta, dict) else {}


def _of_one_model(state: Mapping[str, Any]) -> dict[str, Any]:
    """Choose the weights of one model where there are several, and drop their prefixes."""
    state = {re.sub(r"^(module\.)+", "", key): value for key, value in state.items()}
    prefix = ""
    if any(key.startswith(STUDENT_PREFIX) for key in state):
        prefix = STUDENT_PREFIX
    elif all(any(key.startswith(each) for key in state) for each in SEMI_PREFIXES):
        prefix = SEMI_PREFIXES[0]
    return {
        key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)
    }


def _require_checkpoint(path: Path, who: str) -> None:
    """Refuse a local path that is no checkpoint by its first bytes."""
    if path.is_dir():
        inside = sorted(file.name for file in path.glob("*.pth"))[:SHOWN_KEYS]
        hint = f"one of {', '.join(inside)}" if inside else "there is no .pth in it"
        reasons = [f"it is a folder; give the file ({hint})"]
    elif not path.is_file():
        raise FileNotFoundError(f"the {who}'s checkpoint {path} does not exist")
    else:
        with path.open("rb") as file:
            head = file.read(256)
        reasons = [why for start, why in NO_CHECKPOINT.items() if re.match(start, head, re.I)]
    if reasons:
        raise CheckpointError(f"the {who}'s checkpoint {path} cannot be read: {reasons[0]}")


def load_weights(model: nn.Module, path: str, who: str) -> list[str] | None:
    """Load ``path`` (a file or URL) into ``model``; every weight must be in it.

    The forms of :func:`read_weights` are supported. Weights that the model lacks are left out with
    a warning (a mask head for a box-only teacher, for example). ``who`` is ``'student'`` or
    ``'teacher'``, for messages.

    Returns:
        The names of the classes that the model was trained on, if the checkpoint has them.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If a weight is missing or has another shape; lists them.
    """
    state, meta = read_weights(path, who)
    own = model.state_dict()
    missing = [key for key in own if key not in state and "num_batches_tracked" not in key]
    unexpected = [key for key in state if key not in own]
    other_shape = [
        f"{key} (expected {list(own[key].shape)}, found {list(state[key].shape)})"
        for key in own
        if key in state and own[key].shape != state[key].shape
    ]
    if missing or other_shape:
        raise CheckpointError(
            f"the {who}'s checkpoint {path} does not fit the {who} {type(model).__name__} "
            f"of {len(own)} weights.{_listed('missing', missing)}"
            f"{_listed('of another shape', other_shape)}{_listed('unexpected', unexpected)}"
        )
    if unexpected:
        print_log(
            f"The {who}'s checkpoint {path} holds weights that the {who} has no parameters for."
            f"{_listed('left out', unexpected)}",
            logger="current",
            level=30,
        )
    model.load_state_dict(state, strict=False)
    return class_names(meta)


def class_names(meta: dict[str, Any]) -> list[str] | None:
    """Read the classes of a model from its checkpoint's ``meta``, of MMEngine or of mmdet 2."""
    found = (meta.get("dataset_meta") or {}).get("classes") or meta.get("CLASSES")
    return None if found is None else list(found)


def weights_sha256(model: nn.Module) -> str:
    """Compute a digest of all weights and buffers: names, shapes, types and values.

    Taken from the content and not from a file, so that it stays the same when a checkpoint is
    copied, renamed, or stripped of its optimizer state.
    """
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        value = value.detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        # As bytes, since NumPy has no bfloat16.
        digest.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _listed(what: str, keys: list[str]) -> str:
    if not keys:
        return ""
    more = f" and {len(keys) - SHOWN_KEYS} more" if len(keys) > SHOWN_KEYS else ""
    return f" {len(keys)} {what}: {', '.join(keys[:SHOWN_KEYS])}{more}."
