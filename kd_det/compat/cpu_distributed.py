"""Let `torchrun` train on a machine without a GPU.

MMEngine 0.10.7's `init_dist` calls `torch.cuda.set_device` and asks for the NCCL backend, and its
runner hands `device_ids` to DistributedDataParallel, whether or not there is a GPU; either of them
fails on a CPU. With both patched, `launcher='pytorch'` works with the default `env_cfg`.
"""

from __future__ import annotations

import logging
import os
from types import ModuleType
from typing import Any

import torch
import wrapt
from torch import distributed

from kd_det.errors import InvalidInputError

_BACKEND = "gloo"  # the one that every build of torch has for CPU tensors
_logger = logging.getLogger(__name__)


def patch() -> None:
    """Replace both calls, for processes that turn out to have no accelerator."""
    wrapt.register_post_import_hook(_patch_init, "mmengine.dist.utils")
    wrapt.register_post_import_hook(_patch_wrapper, "mmengine.model.wrappers.distributed")


def _patch_init(module: ModuleType) -> None:
    @wrapt.patch_function_wrapper(module, "_init_dist_pytorch")
    def init_dist_pytorch(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> None:
        if torch.cuda.is_available() or _has_other_accelerator(module):
            return wrapped(*args, **kwargs)
        return _init_on_cpu(*args, **kwargs)


def _has_other_accelerator(module: ModuleType) -> bool:
    """Those for which MMEngine has a branch of its own."""
    names = ("is_mlu_available", "is_npu_available", "is_musa_available")
    return any(getattr(module, name, bool)() for name in names)


def _init_on_cpu(backend: str, init_backend: str = "torch", **kwargs: Any) -> None:
    if init_backend != "torch":
        raise InvalidInputError(
            f"init_backend={init_backend!r} needs a GPU, and none was found; "
            "on a CPU only init_backend='torch' works"
        )
    if backend == "nccl":
        if os.environ.get("RANK", "0") == "0":
            _logger.warning("no GPU found: using the %r backend instead of 'nccl'", _BACKEND)
        backend = _BACKEND
    distributed.init_process_group(backend=backend, **kwargs)


def _patch_wrapper(module: ModuleType) -> None:
    @wrapt.patch_function_wrapper(module, "MMDistributedDataParallel.__init__")
    def init(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> None:
        wrapped_model = kwargs["module"] if "module" in kwargs else args[0]
        if all(parameter.device.type == "cpu" for parameter in wrapped_model.parameters()):
            kwargs = {**kwargs, "device_ids": None, "output_device": None}
        wrapped(*args, **kwargs)
