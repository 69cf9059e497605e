"""A config as text that derives from others and says only what differs."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from keyword import iskeyword
from pathlib import Path
from typing import Any

from mmengine.config import Config

from kd_det import caches, config_files, recipes
from kd_det.errors import InvalidInputError, UnsupportedTypeError
from kd_det.files import write_atomically
from kd_det.literals import ascii_source

WIDTH = 100
DELETE = "_delete_"


def read_bases(bases: Iterable[Path | str]) -> dict[str, Any]:
    """Read the config that derives from ``bases`` and changes nothing."""
    caches.install()
    return Config.fromstring(f"_base_ = {[str(base) for base in bases]!r}", ".py").to_dict()


def read_config(name: str) -> dict[str, Any]:
    """A file's config, or one of a package (``mmdet::...``), which keeps its scope.

    Raises:
        FileNotFoundError: If there is no such file.
        InvalidInputError: If one from which it derives does not exist.
    """
    if "::" not in name:
        return config_files.read_config(name).to_dict()
    config_files.package_config(name)
    # What MMEngine inherits from a package is marked as its; so are kd_det's bases.
    try:
        return read_bases([name])
    except FileNotFoundError as error:
        raise recipes.without_base(name, recipes.missing_file(error)) from error


def find_changes(base: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Find the entries that a config derived from ``base`` needs to become ``wanted``.

    Dicts are merged key by key; one that lacks a key of the base's replaces it (``_delete_``),
    as does one where the base has something else. Anything else is replaced as a whole.
    """
    if base.keys() - wanted.keys():
        return {DELETE: True, **wanted}
    changes: dict[str, Any] = {}
    for key, value in wanted.items():
        if key not in base:
            changes[key] = value
        elif isinstance(value, Mapping) and isinstance(base[key], Mapping):
            inner = find_changes(base[key], value)
            if inner:
                changes[key] = inner
        elif isinstance(value, Mapping):
            changes[key] = {DELETE: True, **value}
        elif type(value) is not type(base[key]) or value != base[key]:
            changes[key] = value
    return changes


def write_config(
    path: Path, bases: Sequence[Path], wanted: Mapping[str, Any], comments: Iterable[str] = ()
) -> None:
    """Write ``wanted`` as a file that derives from ``bases``, and read it back.

    Paths of bases are absolute; comments go to the head of the file.

    Raises:
        ValueError: If a key of the bases is missing, or the file reads back differently.
        OSError: If it cannot be written.
    """
    lines = [line for comment in comments for line in _comment(comment)]
    if bases:
        lines.append(_assignment("_base_", [base.as_posix() for base in bases]))
    base = read_bases(bases)
    lacking = base.keys() - wanted.keys()
    if lacking:
        raise InvalidInputError(
            f"keys of the bases cannot be removed, missing: {', '.join(sorted(lacking))}"
        )
    changes = find_changes(base, wanted)
    for part in ("dataloader", "evaluator"):
        if changes.get(f"test_{part}") and changes[f"test_{part}"] == changes.get(f"val_{part}"):
            del changes[f"test_{part}"]  # behind what it names
            changes[f"test_{part}"] = _Name(f"val_{part}")
    lines += [_assignment(key, value) for key, value in changes.items()]
    source = ascii_source("\n".join(lines) + "\n")
    write_atomically(path, source.encode("utf-8", "backslashreplace"))
    found = Config.fromfile(path).to_dict()
    if found != wanted:
        other = sorted(k for k in found | dict(wanted) if found.get(k) != wanted.get(k))
        raise InvalidInputError(
            f"{path} was written, but reads back with other values of: {', '.join(other)}"
        )


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent="# ", subsequent_indent="#   ", break_long_words=False
    )


class _Name(str):
    """A variable's name."""


def _assignment(name: str, value: Any) -> str:
    return f"{name} = {to_source(value, taken=len(name) + 3)}"


def to_source(value: Any, indent: int = 0, taken: int = 0) -> str:
    """Python source of a config's value, in lines of up to ``WIDTH`` characters.

    ``indent`` is that of the line on which it begins, ``taken`` the characters before it there.

    Raises:
        TypeError: For a value that has no literal, as a function.
    """
    if isinstance(value, _Name):
        return str(value)
    if not isinstance(value, (Mapping, list, tuple)):
        if value is not None and not isinstance(value, (str, int, float, bytes)):
            raise UnsupportedTypeError(f"a config can hold literals, found {value!r}")
        return _literal(value)
    opening, items, closing = _items(value, indent + 4)
    single = len(value) == 1 and isinstance(value, tuple)
    line = f"{opening}{', '.join(items)}{',' if single else ''}{closing}"
    if "\n" not in line and taken + len(line) < WIDTH:
        return line
    inner = " " * (indent + 4)
    lines = [opening, *(f"{inner}{item}," for item in items), " " * indent + closing]
    return "\n".join(lines)


def _literal(value: Any) -> str:
    text = repr(value)
    if isinstance(value, str) and '"' not in text:
        return f'"{text[1:-1]}"'
    # inf and nan have no literal of their own.
    return f'float("{text}")' if text in ("inf", "-inf", "nan") else text


def _items(value: Any, indent: int) -> tuple[str, list[str], str]:
    """Opening bracket, source of each item, closing bracket."""
    if not isinstance(value, Mapping):
        items = [to_source(item, indent, indent) for item in value]
        return ("[", items, "]") if isinstance(value, list) else ("(", items, ")")
    if all(isinstance(k, str) and _is_name(k) for k in value):
        heads = [f"{key}=" for key in value]
        opening, closing = "dict(", ")"
    else:
        heads = [f"{to_source(key)}: " for key in value]
        opening, closing = "{", "}"
    items = [h + to_source(v, indent, indent + len(h)) for h, v in zip(heads, value.values())]
    return opening, items, closing


def _is_name(key: str) -> bool:
    return key.isascii() and key.isidentifier() and not iskeyword(key)
