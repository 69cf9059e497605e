"""An unpickler that makes what a list allows and nothing else, for torch before 2.6.

The one that torch has there for `weights_only=True` builds tensors alone, and its list cannot be
extended (`torch.serialization.add_safe_globals` takes stand-ins since 2.6). A plain
`pickle.Unpickler` with a `find_class` of its own would not do: a file may also set attributes of
the functions and classes that it was given (the opcode BUILD). So this is Python's unpickler with
its operations restricted as in torch's newest.
"""

from __future__ import annotations

import _compat_pickle
import pickle
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any, BinaryIO, ClassVar, NoReturn

import torch
from torch import _weights_only_unpickler as torchs

from kd_det.compat.checkpoint_contents import encode, refuse

_OPCODES = (
    *(pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.POP, pickle.POP_MARK),
    *(pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.BINFLOAT),
    *(pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1, pickle.LONG4),
    *(pickle.BINSTRING, pickle.SHORT_BINSTRING),
    *(pickle.BINUNICODE, pickle.SHORT_BINUNICODE, pickle.BINUNICODE8),
    *(pickle.BINBYTES, pickle.SHORT_BINBYTES, pickle.BINBYTES8),
    *(pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3),
    *(pickle.EMPTY_LIST, pickle.EMPTY_DICT, pickle.EMPTY_SET, pickle.FROZENSET),
    *(pickle.BINGET, pickle.LONG_BINGET, pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE),
    pickle.GLOBAL,  # asks find_class
)
_DICTS = (dict, OrderedDict, Counter)
# By opcode: what it may fill, and where that stands on the stack.
_FILLING: dict[bytes, tuple[tuple[type, ...], Callable[[Any], Any]]] = {
    pickle.APPEND: ((list,), lambda unpickler: unpickler.stack[-2]),
    pickle.APPENDS: ((list,), lambda unpickler: unpickler.metastack[-1][-1]),
    pickle.SETITEM: (_DICTS, lambda unpickler: unpickler.stack[-3]),
    pickle.SETITEMS: (_DICTS, lambda unpickler: unpickler.metastack[-1][-1]),
    pickle.ADDITEMS: ((set,), lambda unpickler: unpickler.metastack[-1][-1]),
}

_PLAIN: dict[int, Callable[[Any], None]] = pickle._Unpickler.dispatch  # type: ignore[attr-defined]


def _unknown(unpickler: Any) -> NoReturn:
    refuse("an operation of pickle that weights do not need")


class Unpickler(pickle._Unpickler):  # type: ignore[name-defined, misc]
    """Takes the place of torch's own, which it asks for what tensors need."""

    stack: list[Any]
    append: Callable[[Any], None]

    # By full name, what a file may name on top of that. Filled by kd_det.compat.torch_load.
    allowed: ClassVar[dict[str, Any]] = {
        "collections.Counter": Counter,  # milestones of a scheduler
        "_codecs.encode": encode,
    }
    # Classes that a file may make an object of, and whose objects it may give their state.
    buildable: ClassVar[set[type]] = set()

    def __init__(self, file: BinaryIO, *, encoding: str = "bytes") -> None:
        super().__init__(file, encoding=encoding)

    def find_class(self, module: str, name: str) -> Any:
        # Protocol 2 writes the names that Python 2 had.
        module = _compat_pickle.IMPORT_MAPPING.get(module, module)
        module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
        found = self._globals().get(f"{module}.{name}")
        return refuse(f"{module}.{name} (Unsupported global)") if found is None else found

    def _globals(self) -> dict[str, Any]:
        return {**torchs._get_allowed_globals(), **_allowed_by_users(), **self.allowed}

    def _reduce(self) -> None:
        args = self.stack.pop()
        function = self.stack[-1]
        if not any(function is each for each in self._globals().values()):
            refuse(f"a call of the unrecognized function {function!r}")
        self.stack[-1] = function(*args)

    def _new_object(self) -> None:
        args = self.stack.pop()
        kind = self.stack.pop()
        if kind is not torch.nn.Parameter and not self._may_build(kind):
            refuse(f"an object of {kind!r}")
        self.append(kind.__new__(kind, *args))

    def _build(self) -> None:
        state = self.stack.pop()
        built = self.stack[-1]
        kind = type(built)
        if kind is torch.Tensor:
            built.set_(*state)
        elif kind is OrderedDict:
            built.__dict__.update(state)
        elif kind is torch.nn.Parameter or self._may_build(kind):
            if hasattr(built, "__setstate__"):
                built.__setstate__(state)
            else:
                built.__dict__.update(state)
        else:
            refuse(f"the state of {kind!r}")

    def _may_build(self, kind: Any) -> bool:
        return any(kind is each for each in (*self.buildable, *_allowed_by_users().values()))

    def _storage(self) -> None:
        reference = self.stack.pop()
        if type(reference) is not tuple or reference[:1] not in (("storage",), (b"storage",)):
            refuse(f"a reference to {reference!r}")
        self.append(self.persistent_load(reference))

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **dict.fromkeys(_PLAIN, _unknown),
        **{code[0]: _PLAIN[code[0]] for code in _OPCODES},
        pickle.REDUCE[0]: _reduce,
        pickle.NEWOBJ[0]: _new_object,
        pickle.BUILD[0]: _build,
        pickle.BINPERSID[0]: _storage,
    }


def _filling(opcode: bytes) -> Callable[[Any], None]:
    kinds, target = _FILLING[opcode]

    def fill(unpickler: Any) -> None:
        if type(target(unpickler)) not in kinds:
            refuse(f"entries of {type(target(unpickler))!r}")
        _PLAIN[opcode[0]](unpickler)

    return fill


Unpickler.dispatch.update((opcode[0], _filling(opcode)) for opcode in _FILLING)


def _allowed_by_users() -> dict[str, Any]:
    """By `torch.serialization.add_safe_globals`, which torch has since 2.4."""
    return getattr(torchs, "_get_user_allowed_globals", dict)()
