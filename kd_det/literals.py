"""Config source: values read without executing any of it, letters that every locale can read."""

from __future__ import annotations

import ast
from typing import Any

WORDS = {"true": True, "false": False}


def read_literal(text: str) -> Any:
    """The value of a Python literal; ``dict(a=1)`` and ``float("inf")`` are literals too.

    Raises:
        SyntaxError: If it is no Python expression.
        ValueError: If it has anything else in it, a name or a call for example.
    """
    return _value(ast.parse(text.strip(), mode="eval").body)


def read_assignments(text: str) -> dict[str, Any]:
    """The values by name of a text of ``name = literal`` lines, as MMEngine dumps a config.

    Raises:
        SyntaxError: If it is no Python.
        ValueError: If there is anything else in it.
    """
    found = {}
    for node in ast.parse(text).body:
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            raise ValueError(f"expected NAME = VALUE in line {node.lineno}")
        found[node.targets[0].id] = _value(node.value)
    return found


def ascii_source(text: str) -> str:
    """Python source with every letter beyond ASCII escaped, so that any locale can read it.

    Source in which a name has such letters stays as it is: names have no escapes.

    Args:
        text: Source without raw strings, as ``repr`` and MMEngine write it.
    """
    escaped = text.encode("ascii", "backslashreplace").decode("ascii")
    try:
        ast.parse(escaped)
    except SyntaxError:
        return text
    return escaped


def _value(node: ast.expr) -> Any:
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        items = [_value(each) for each in node.elts]
        return {ast.List: list, ast.Tuple: tuple, ast.Set: set}[type(node)](items)
    if isinstance(node, ast.Dict) and None not in node.keys:
        return {_value(k): _value(v) for k, v in zip(node.keys, node.values) if k is not None}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        keywords = {each.arg: _value(each.value) for each in node.keywords}
        # dict({"a.b": 1}, c=2): some keys are no names.
        if node.func.id == "dict" and len(node.args) < 2 and None not in keywords:
            return {**(_value(node.args[0]) if node.args else {}), **keywords}
        if node.func.id == "float" and len(node.args) == 1 and not keywords:
            return float(_value(node.args[0]))
        if node.func.id == "set" and not node.args and not keywords:
            return set()
    if isinstance(node, ast.Name) and node.id in WORDS:
        return WORDS[node.id]
    return ast.literal_eval(node)
