"""What MkDocs has to be told: links out of docs/, formulas, and the form of docstrings."""

from __future__ import annotations

import html as entities
import re
import textwrap
from typing import Any

import griffe
from latex2mathml.converter import convert

LINK_OUT = re.compile(r"\[([^\]]+)\]\((?:\.\./)+[^)]*\)")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.S)
ROLE = re.compile(r":(?:class|func|meth|mod|data):`~?([\w.]+)`")
CODE_BLOCK = re.compile(r"\.\. code-block:: (\w+)\n\n((?:(?: {4}.*)?\n)+)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Files of the repository outside docs/ are no pages: their links become plain text."""
    return LINK_OUT.sub(r"\1", markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Formulas become MathML, which browsers show without a script."""
    return FORMULA.sub(
        lambda found: convert(
            entities.unescape(found[2]), display="block" if found[1] == "div" else "inline"
        ),
        html,
    )


class Docstrings(griffe.Extension):
    """Turns the roles and code blocks of docstrings into Markdown."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring is not None:
            text = ROLE.sub(lambda role: _link(obj, role[1]), obj.docstring.value + "\n")
            obj.docstring.value = CODE_BLOCK.sub(_fenced, text).rstrip()


def _link(obj: griffe.Object, name: str) -> str:
    try:
        target = name if name.startswith("kd_det.") else obj.resolve(name)
    except griffe.NameResolutionError:
        target = name
    # Optional: what is private has no place in the reference.
    return f'<autoref identifier="{target}" optional><code>{name}</code></autoref>'


def _fenced(block: re.Match[str]) -> str:
    return f"```{block[1]}\n{textwrap.dedent(block[2]).strip()}\n```\n"
