"""What MMEngine's checkpoints hold besides weights, in a form that a file cannot abuse.

It holds `HistoryBuffer`s, NumPy scalars and arrays, and a few functions of MMEngine's own classes,
which pickle writes as `getattr(owner, name)`. What a file could abuse is not handed over itself; a
stand-in under its name does the one thing that is needed:

- `getattr` serves a short list of functions, no other object and no other name;
- NumPy's constructors make plain numbers and arrays of plain numbers. The real `numpy.dtype` would
  let a file rewrite a dtype's flags (`dtype.__setstate__`) and so pass off bytes as pointers.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

# What MMEngine registers on every HistoryBuffer and therefore writes with it.
STATISTICS = ("min", "max", "current", "mean")


def refuse(what: str) -> NoReturn:
    """Raise the error of a file that holds something else."""
    raise pickle.UnpicklingError(
        f"refused {what}: not something a checkpoint of MMEngine contains. Nothing was executed. "
        "If you trust its source, load it with torch alone and save its state_dict to a new file."
    )


class Token:
    """Stands for a class that the file may name as an argument but not call."""

    def __call__(self, *args: Any) -> NoReturn:
        refuse(f"a call of numpy.ndarray or of a scheduler with {args!r}")


NDARRAY = Token()


class RestrictedGetattr:
    """`getattr` for a fixed table of owners and names."""

    def __init__(self) -> None:
        self.table: list[tuple[object, dict[str, Callable[..., Any]]]] = []

    def serve(self, owner: object, functions: dict[str, Callable[..., Any]]) -> None:
        """Serve ``functions``, by name, as attributes of ``owner``."""
        self.table.append((owner, functions))

    def __call__(self, *args: Any) -> Callable[..., Any]:
        if len(args) == 2 and type(args[1]) is str:
            for owner, functions in self.table:
                if args[0] is owner and args[1] in functions:
                    return functions[args[1]]
        return refuse(f"getattr{args!r}")


class DType:
    """In place of `numpy.dtype`: booleans, integers, floats, complex numbers, and texts."""

    def __init__(self, code: str, align: Any = False, copy: Any = False) -> None:
        self.real = np.dtype(code) if type(code) is str else refuse(f"numpy.dtype({code!r})")
        if self.real.kind not in "biufcSU" or self.real.fields or self.real.subdtype:
            refuse(f"numpy.dtype({code!r})")

    def __setstate__(self, state: Any) -> None:
        """Take the byte order; the rest must say what a plain dtype says."""
        plain = self.real.newbyteorder(state[1]) if state[1] in ("<", ">", "|", "=") else None
        if plain is None or state[2:] != plain.__reduce__()[2][2:]:
            refuse(f"the state {state!r} of a numpy.dtype")
        self.real = plain


class Array(np.ndarray):
    """An array as the file restores it; behaves, prints and pickles as the plain one."""

    __array_priority__ = -1.0  # mixed with a plain array the result is a plain one

    def __setstate__(self, state: Any) -> None:
        version, shape, dtype, fortran_order, data = state
        super().__setstate__((version, shape, _real(dtype), fortran_order, data))

    def __reduce__(self) -> Any:
        return self.view(np.ndarray).__reduce__()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.view(np.ndarray).__reduce_ex__(protocol)


def reconstruct(kind: Any, shape: Any, code: Any) -> Array:
    """In place of NumPy's: always the empty array that the state then fills."""
    if kind is not NDARRAY or shape != (0,):
        refuse(f"an array of {kind!r} and shape {shape!r}")
    return Array.__new__(Array, (0,), np.int8)


def empty_bytes(*args: Any) -> bytes:
    """How pickle writes the contents of an empty array; a size would be a request for memory."""
    return refuse(f"bytes{args!r}") if args else b""


def encode(*args: Any) -> bytes:
    """In place of `_codecs.encode`, by which pickle writes bytes: as text in Latin-1."""
    if len(args) == 2 and type(args[0]) is str and args[1] == "latin1":
        return args[0].encode("latin1")
    return refuse(f"encode{args!r}")


def scalar(dtype: Any, data: Any) -> Any:
    """In place of NumPy's: one number from its bytes."""
    real = _real(dtype)
    if type(data) is not bytes or len(data) != real.itemsize or not data:
        refuse(f"a numpy scalar of {real} from {data!r}")
    return np.frombuffer(data, real)[0]


def _real(dtype: Any) -> np.dtype[Any]:
    return dtype.real if type(dtype) is DType else refuse(f"the dtype {dtype!r}")
