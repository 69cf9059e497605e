"""What the ops of `mmcv._ext` share."""

from __future__ import annotations

import torch
from torch import Tensor

from kd_det.errors import UserError

EXTENSION = "mmcv._ext"


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """float32 for the 16-bit types, else the tensor's own."""
    return torch.float32 if tensor.dtype in (torch.float16, torch.bfloat16) else tensor.dtype


class MissingOpError(UserError, NotImplementedError):
    """An op that only a compiled mmcv has."""


def not_provided(what: str) -> MissingOpError:
    """Return the error of an op, or of a mode of one, that only a compiled mmcv has."""
    return MissingOpError(
        f"mmcv op {what!r} needs compiled mmcv: this mmcv has no extension `{EXTENSION}`, and "
        "neither torchvision nor kd_det provides the op. Remedy: pip uninstall mmcv-lite, then "
        'pip install --no-build-isolation "mmcv>=2.0.0rc4,<2.2.0" (it compiles for some minutes; '
        "for GPUs set MMCV_WITH_OPS=1 and FORCE_CUDA=1)."
    )
