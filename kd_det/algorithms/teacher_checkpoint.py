"""Teacher weights: read strictly, and told apart by their content."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mmengine.logging import print_log
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

SHOWN_KEYS = 10


class TeacherCheckpointError(RuntimeError):
    """The teacher's checkpoint cannot be read or does not fit the teacher."""


def load_teacher(teacher: nn.Module, path: str) -> None:
    """Load ``path`` (a file or URL) into ``teacher``; every weight must be in it.

    Weights that the teacher has no place for are left out with a warning (a mask head in the
    checkpoint of a box-only teacher, for example).

    Raises:
        FileNotFoundError: If there is no such file.
        TeacherCheckpointError: If a weight is missing or has another shape; lists them.
    """
    path = str(path)
    if "://" not in path and not Path(path).is_file():
        raise FileNotFoundError(
            f"the teacher's checkpoint {path} does not exist: train the teacher first, or set "
            "model.teacher_ckpt to its file or URL"
        )
    checkpoint = CheckpointLoader.load_checkpoint(path, map_location="cpu")
    state = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict):
        raise TeacherCheckpointError(
            f"the teacher's checkpoint {path}: expected a dict of weights, found "
            f"{type(checkpoint).__name__}"
        )
    state = {key.removeprefix("module."): value for key, value in state.items()}
    own = teacher.state_dict()
    missing = [key for key in own if key not in state and "num_batches_tracked" not in key]
    unexpected = [key for key in state if key not in own]
    other_shape = [
        f"{key} (expected {list(own[key].shape)}, found {list(state[key].shape)})"
        for key in own
        if key in state and own[key].shape != state[key].shape
    ]
    if missing or other_shape:
        raise TeacherCheckpointError(
            f"the teacher's checkpoint {path} does not fit the teacher {type(teacher).__name__} "
            f"of {len(own)} weights.{_listed('missing', missing)}"
            f"{_listed('of another shape', other_shape)}{_listed('unexpected', unexpected)}"
        )
    if unexpected:
        print_log(
            f"The teacher's checkpoint {path} holds weights that the teacher has no place for."
            f"{_listed('left out', unexpected)}",
            logger="current",
            level=30,
        )
    teacher.load_state_dict(state, strict=False)


def weights_sha256(model: nn.Module) -> str:
    """Digest of all weights and buffers: names, shapes, types and values.

    Taken from the content and not from a file, so that it stays the same when a checkpoint is
    copied, renamed, or stripped of its optimizer state.
    """
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        value = value.detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.flatten().view(-1).numpy().tobytes())
    return digest.hexdigest()


def _listed(what: str, keys: list[str]) -> str:
    if not keys:
        return ""
    more = f" and {len(keys) - SHOWN_KEYS} more" if len(keys) > SHOWN_KEYS else ""
    return f" {len(keys)} {what}: {', '.join(keys[:SHOWN_KEYS])}{more}."
