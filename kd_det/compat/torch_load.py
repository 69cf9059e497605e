"""Let MMEngine's checkpoints load with `weights_only=True`, executing nothing in the file.

`torch.load` refuses pickled objects it does not know since torch 2.6 (open-mmlab/mmengine issue
1655). A checkpoint of MMEngine holds `HistoryBuffer`s, NumPy scalars and arrays, and a few
functions of its own classes, which pickle writes as `getattr(owner, name)`; so neither resuming
nor loading a teacher works.

They are allowed here one by one, through `torch.serialization.add_safe_globals`. What a file could
abuse is not handed over itself; a stand-in under its name does the one thing that is needed:

- `getattr` serves a short list of functions, no other object and no other name;
- NumPy's constructors make plain numbers and arrays of plain numbers. The real `numpy.dtype` would
  let a file rewrite a dtype's flags (`dtype.__setstate__`) and so pass off bytes as pointers.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from types import ModuleType
from typing import Any, NoReturn

import numpy as np
import torch
import wrapt

# What MMEngine registers on every HistoryBuffer and therefore writes with it.
_STATISTICS = ("min", "max", "current", "mean")


def patch() -> None:
    """Allow the contents of MMEngine's checkpoints, once the classes in them are imported."""
    wrapt.register_post_import_hook(_allow_history, "mmengine.logging.history_buffer")
    wrapt.register_post_import_hook(_allow_one_cycle, "mmengine.optim.scheduler.param_scheduler")


def _allow_history(module: ModuleType) -> None:
    history = module.HistoryBuffer
    if _loads(history([1.0], [1])):
        return
    owner = f"{history.__module__}.{history.__qualname__}"
    _getattr.serve(history, {name: getattr(history, name) for name in _STATISTICS})
    allowed: list[Any] = [
        (history, owner),
        (_getattr, "builtins.getattr"),
        (_DType, "numpy.dtype"),
        (_NDARRAY, "numpy.ndarray"),
        (_empty_bytes, "builtins.bytes"),
        # For the unpickler to restore an array its type must be allowed, but the file must not
        # make one by itself. A pickle reads names line by line, so it cannot spell this one.
        (_Array, "numpy.ndarray\n"),
    ]
    # numpy 2 renamed the module; a file has the name of the numpy that wrote it.
    for multiarray in ("numpy.core.multiarray", "numpy._core.multiarray"):
        allowed.append((_reconstruct, f"{multiarray}._reconstruct"))
        allowed.append((_scalar, f"{multiarray}.scalar"))
    torch.serialization.add_safe_globals(allowed)


def _allow_one_cycle(module: ModuleType) -> None:
    """The one scheduler that keeps a function in its state: its annealing curve."""
    scheduler = module.OneCycleParamScheduler
    names = ("_annealing_cos", "_annealing_linear")
    if _loads(scheduler._annealing_cos):
        return
    token = _Token()
    _getattr.serve(token, {name: getattr(scheduler, name) for name in names})
    path = f"{scheduler.__module__}.{scheduler.__qualname__}"
    torch.serialization.add_safe_globals([(token, path), (_getattr, "builtins.getattr")])


def _loads(value: object) -> bool:
    """Whether plain `torch.load` takes back what `torch.save` wrote."""
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    try:
        torch.load(file)
    except pickle.UnpicklingError:
        return False
    return True


def _refuse(what: str) -> NoReturn:
    raise pickle.UnpicklingError(
        f"refused {what}: not something a checkpoint of MMEngine contains. Nothing was executed. "
        "If you trust its source, allow it with torch.serialization.add_safe_globals."
    )


class _Token:
    """Stands for a class that the file may name as an argument but not call."""

    def __call__(self, *args: Any) -> NoReturn:
        _refuse(f"a call of numpy.ndarray or of a scheduler with {args!r}")


_NDARRAY = _Token()


class _RestrictedGetattr:
    """`getattr` for a fixed table of owners and names."""

    def __init__(self) -> None:
        self.table: list[tuple[object, dict[str, Callable[..., Any]]]] = []

    def serve(self, owner: object, functions: dict[str, Callable[..., Any]]) -> None:
        self.table.append((owner, functions))

    def __call__(self, *args: Any) -> Callable[..., Any]:
        if len(args) == 2 and type(args[1]) is str:
            for owner, functions in self.table:
                if args[0] is owner and args[1] in functions:
                    return functions[args[1]]
        return _refuse(f"getattr{args!r}")


_getattr = _RestrictedGetattr()


class _DType:
    """In place of `numpy.dtype`: booleans, integers, floats, complex numbers, and texts."""

    def __init__(self, code: str, align: Any = False, copy: Any = False) -> None:
        self.real = np.dtype(code) if type(code) is str else _refuse(f"numpy.dtype({code!r})")
        if self.real.kind not in "biufcSU" or self.real.fields or self.real.subdtype:
            _refuse(f"numpy.dtype({code!r})")

    def __setstate__(self, state: Any) -> None:
        """Take the byte order; the rest must say what a plain dtype says."""
        plain = self.real.newbyteorder(state[1]) if state[1] in ("<", ">", "|", "=") else None
        if plain is None or state[2:] != plain.__reduce__()[2][2:]:
            _refuse(f"the state {state!r} of a numpy.dtype")
        self.real = plain


class _Array(np.ndarray):
    """An array as the file restores it; behaves, prints and pickles as the plain one."""

    __array_priority__ = -1.0  # mixed with a plain array the result is a plain one

    def __setstate__(self, state: Any) -> None:
        version, shape, dtype, fortran_order, data = state
        super().__setstate__((version, shape, _real(dtype), fortran_order, data))

    def __reduce__(self) -> Any:
        return self.view(np.ndarray).__reduce__()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.view(np.ndarray).__reduce_ex__(protocol)


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    """In place of NumPy's: always the empty array that the state then fills."""
    if kind is not _NDARRAY or shape != (0,):
        _refuse(f"an array of {kind!r} and shape {shape!r}")
    return _Array.__new__(_Array, (0,), np.int8)


def _empty_bytes(*args: Any) -> bytes:
    """How pickle writes the contents of an empty array; a size would be a request for memory."""
    return _refuse(f"bytes{args!r}") if args else b""


def _scalar(dtype: Any, data: Any) -> Any:
    """In place of NumPy's: one number from its bytes."""
    real = _real(dtype)
    if type(data) is not bytes or len(data) != real.itemsize or not data:
        _refuse(f"a numpy scalar of {real} from {data!r}")
    return np.frombuffer(data, real)[0]


def _real(dtype: Any) -> np.dtype[Any]:
    return dtype.real if type(dtype) is _DType else _refuse(f"the dtype {dtype!r}")
