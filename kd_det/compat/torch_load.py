"""Let MMEngine's checkpoints load with `weights_only=True`, executing nothing in the file.

Since torch 2.6 that is what `torch.load` does by default, and it refuses what it does not know
(open-mmlab/mmengine issue 1655), so that neither resuming nor loading a teacher works. Before, the
default executed whatever a file said, and `weights_only=True` refused the same.

What MMEngine's checkpoints hold besides weights (`kd_det.compat.checkpoint_contents`) is allowed
one by one: since 2.6 through `torch.serialization.add_safe_globals`; before, by an unpickler of our
own in place of the one that torch has for `weights_only=True`, which MMEngine is then made to use.
"""

from __future__ import annotations

import io
import pickle
import tarfile
from types import ModuleType
from typing import Any

import torch
import wrapt
from torch import serialization

from kd_det.compat.checkpoint_contents import (
    NDARRAY,
    STATISTICS,
    Array,
    DType,
    RestrictedGetattr,
    Token,
    empty_bytes,
    reconstruct,
    refuse,
    scalar,
)

# Whether plain `torch.load` calls what a file says.
EXECUTES_BY_DEFAULT = torch.__version__ < "2.6"

_getattr = RestrictedGetattr()


def patch() -> None:
    """Allow the contents of MMEngine's checkpoints, once the classes in them are imported."""
    if EXECUTES_BY_DEFAULT:
        from kd_det.compat.restricted_unpickler import Unpickler

        torch._weights_only_unpickler.Unpickler = Unpickler  # type: ignore[misc, assignment]
        wrapt.register_post_import_hook(_load_carefully, "mmengine.runner.checkpoint")
    wrapt.register_post_import_hook(_load_once, "mmengine.runner.checkpoint")
    wrapt.register_post_import_hook(_allow_history, "mmengine.logging.history_buffer")
    wrapt.register_post_import_hook(_allow_one_cycle, "mmengine.optim.scheduler.param_scheduler")


def load_carefully(file: Any, map_location: Any = None, **options: Any) -> Any:
    """`torch.load` with `weights_only=True`, for torch before 2.6.

    Raises:
        UnpicklingError: For a file with more than weights, or in a format by which torch then
            executed or unpacked more than it was asked for (CVE-2025-32434).
    """
    with serialization._open_file_like(file, "rb") as opened:
        start = opened.tell()
        if serialization._is_zipfile(opened):
            with serialization._open_zipfile_reader(opened) as reader:
                if serialization._is_torchscript_zip(reader):
                    refuse("a TorchScript archive")
        elif tarfile.is_tarfile(opened):
            refuse("a tar archive, torch's format before 0.1.10")
        opened.seek(start)
        return torch.load(opened, map_location=map_location, **{**options, "weights_only": True})


class _CarefulTorch(wrapt.ObjectProxy):
    load = staticmethod(load_carefully)


def _load_carefully(module: Any) -> None:
    module.torch = _CarefulTorch(module.torch)


def _load_once(module: Any) -> None:
    """Keep onedl-mmengine from loading a file that was refused again, and running its code."""

    def load(file: Any, map_location: Any = None, weights_only: bool | None = None) -> Any:
        return module.torch.load(file, map_location=map_location, weights_only=True)

    if hasattr(module, "_safe_torch_load"):
        module._safe_torch_load = load


def _allow_history(module: ModuleType) -> None:
    history = module.HistoryBuffer
    if _loads(history([1.0], [1])):
        return
    owner = f"{history.__module__}.{history.__qualname__}"
    _getattr.serve(history, {name: getattr(history, name) for name in STATISTICS})
    allowed = {
        owner: history,
        "builtins.getattr": _getattr,
        "numpy.dtype": DType,
        "numpy.ndarray": NDARRAY,
        "builtins.bytes": empty_bytes,
    }
    # numpy 2 renamed the module; a file has the name of the numpy that wrote it.
    for multiarray in ("numpy.core.multiarray", "numpy._core.multiarray"):
        allowed[f"{multiarray}._reconstruct"] = reconstruct
        allowed[f"{multiarray}.scalar"] = scalar
    _allow(allowed, history, Array, DType)


def _allow_one_cycle(module: ModuleType) -> None:
    """The one scheduler that keeps a function in its state: its annealing curve."""
    scheduler = module.OneCycleParamScheduler
    names = ("_annealing_cos", "_annealing_linear")
    if _loads(scheduler._annealing_cos):
        return
    token = Token()
    _getattr.serve(token, {name: getattr(scheduler, name) for name in names})
    path = f"{scheduler.__module__}.{scheduler.__qualname__}"
    _allow({path: token, "builtins.getattr": _getattr})


def _allow(contents: dict[str, Any], *buildable: type) -> None:
    """Let files name ``contents``, by full name, and restore objects of ``buildable``."""
    if EXECUTES_BY_DEFAULT:
        from kd_det.compat.restricted_unpickler import Unpickler

        Unpickler.allowed.update(contents)
        Unpickler.buildable.update(buildable)
        return
    # For torch to restore an object its type must be allowed by some name, but the file must not
    # make one by itself. torch reads names line by line, so a file cannot spell these.
    hidden = {f"{kind.__name__}\n": kind for kind in buildable if kind not in contents.values()}
    allowed = {**contents, **hidden}
    serialization.add_safe_globals([(value, name) for name, value in allowed.items()])


def _loads(value: object) -> bool:
    """Whether `torch.load` takes back what `torch.save` wrote, with `weights_only=True`."""
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    try:
        torch.load(file, weights_only=True)
    except pickle.UnpicklingError:
        return False
    return True
