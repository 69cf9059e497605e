"""Every message that kd_det raises stands in docs/troubleshooting.md, and nothing else does."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from small import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
# Where a message has an expression, the page has this.
GAP = "…"
# With fewer letters of its own, a message only passes another one on.
LETTERS = 12


@cache
def messages() -> dict[str, str]:
    """Text of each exception that is made anywhere in the package, by place."""
    found = {}
    for path in sorted((ROOT / "kd_det").rglob("*.py")):
        for line, text in exceptions(path):
            if len(re.findall(r"[a-z]", text)) >= LETTERS:
                found[f"{path.relative_to(ROOT)}:{line}"] = text
    return found


def exceptions(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and node.args:
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            # Python's own protocol: no one sees what __getattr__ raises.
            if name.endswith("Error") and name != "AttributeError":
                yield node.lineno, " ".join(text_of(node.args[0]).split())


def text_of(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(value) for value in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return text_of(node.left) + text_of(node.right)
    return GAP


@cache
def listed() -> list[str]:
    """What stands in code font in the first column of the page's tables."""
    cells = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    return [text for cell in cells for text in re.findall(r"`([^`]+)`", cell)]


def test_there_are_messages():
    assert len(messages()) > 150


def test_every_message_stands_on_the_page():
    lacking = {
        place: text
        for place, text in messages().items()
        # Those of the commands are about options, which --help explains.
        if "/commands/" not in place and not any(x in text for x in listed())
    }
    assert not lacking


def test_the_page_has_no_message_that_is_not_raised():
    stale = [x for x in listed() if not any(x in text for text in messages().values())]
    assert not stale


def test_what_stands_there_tells_messages_apart():
    for text in listed():
        assert len(text) >= LETTERS, text
