"""``--cfg-options KEY=VALUE ...``, as MMEngine reads it, and what that cannot read."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from kd_det.literals import read_literal


class CfgOptions(argparse.Action):
    """Collects ``KEY=VALUE`` in a dict.

    Python's literals are read as such, with ``dict(a=1)`` too; anything else as MMEngine does:
    ``a,b`` and ``[a, b]`` are lists of words, ``true`` is True.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        options = dict(getattr(namespace, self.dest, None) or {})
        for each in [values] if isinstance(values, str) else values or []:
            key, equals, text = each.partition("=")
            if not equals or not all(key.split(".")):
                raise argparse.ArgumentError(self, f"expected KEY=VALUE, found {each!r}")
            try:
                options[key] = read_value(text)
            except ValueError as error:
                raise argparse.ArgumentError(self, f"{key}: {error}") from error
        setattr(namespace, self.dest, options)


def read_value(text: str) -> Any:
    """The value that a text means.

    Raises:
        ValueError: If its brackets do not match, or a dict cannot be read.
    """
    if text.startswith(("[", "{", "(", "dict(")):
        try:
            found = read_literal(text)
            # To MMEngine, (1) is a tuple.
            if not text.startswith("(") or isinstance(found, tuple):
                return found
        except (SyntaxError, ValueError) as error:
            if text.startswith(("{", "dict(")) or "dict(" in text:
                raise ValueError(f"cannot read {text!r} ({error})") from error
    from mmengine.config import DictAction

    found = argparse.Namespace()
    try:
        DictAction([], "value")(argparse.ArgumentParser(), found, [f"key={text}"])
    except (AssertionError, RecursionError) as error:
        raise ValueError(f"cannot read {text!r}, the brackets do not match") from error
    return found.value["key"]
