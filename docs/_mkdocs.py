"""MkDocs hooks: parts of pages that follow the code, links out of docs/, formulas, docstrings.

A page has ``<!-- methods -->`` or another key of :data:`PARTS` where the site has what is made of
the code.
"""

from __future__ import annotations

import html as entities
import inspect
import os
import re
import textwrap
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import griffe
from latex2mathml.converter import convert

ROOT = Path(__file__).parents[1]
PART = re.compile(r"^<!-- (\w+)(?:: (\S+))? -->$", re.M)
LINK_OUT = re.compile(r"\[([^\]]+)\]\((?:\.\./)+[^)]*\)")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.S)
ROLE = re.compile(r":(?:class|func|meth|mod|data):`~?([\w.]+)`")
CODE_BLOCK = re.compile(r"\.\. code-block:: (\w+)\n\n((?:(?: {4}.*)?\n)+)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in what follows the code; links to files outside docs/ become plain text."""
    markdown = PART.sub(lambda found: PARTS[found[1]](*filter(None, [found[2]])), markdown)
    return LINK_OUT.sub(r"\1", markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Formulas become MathML, which browsers show without a script."""
    return FORMULA.sub(
        lambda found: convert(
            entities.unescape(found[2]), display="block" if found[1] == "div" else "inline"
        ),
        html,
    )


def _methods() -> str:
    from kd_det.pairing.methods import METHODS

    rows = [(f"`{name}`", m.does, m.gain, m.source) for name, m in METHODS.items()]
    return _table(("method", "what the student learns from", "published gain", "source"), rows)


def _names() -> str:
    """All that a config can name as ``kd_det.<Name>``, with links."""
    rows = []
    for registry in _registries():
        registry.import_from_location()
        for name, cls in registry.module_dict.items():
            # MMRazor's recorders leave out the end of the class's name.
            short = name.removesuffix("Recorder")
            if cls.__module__.startswith("kd_det."):
                link = f'<autoref identifier="{_path(cls)}"><code>kd_det.{short}</code></autoref>'
                rows.append((link, ROLE.sub(r"`\1`", inspect.getdoc(cls).splitlines()[0])))
    return _table(("type", "purpose"), sorted(set(rows)))


def _registries() -> Iterator[Any]:
    from mmengine.registry import Registry

    import kd_det.registry

    yield from (each for each in vars(kd_det.registry).values() if isinstance(each, Registry)
                and each.scope == "kd_det")  # fmt: skip


def _members(package: str) -> str:
    """The reference of what a package makes public: classes, then functions, then errors."""
    public = [getattr(import_module(package), name) for name in import_module(package).__all__]
    documented = [each for each in public if inspect.isroutine(each) or inspect.isclass(each)]
    documented.sort(key=lambda x: (x.__name__.endswith("Error"), inspect.isroutine(x), x.__name__))
    return "\n\n".join(f"::: {_path(each)}" for each in documented)


def _path(each: Any) -> str:
    return f"{each.__module__}.{each.__qualname__}"


def _commands() -> str:
    """The help of each command."""
    from kd_det.commands import COMMANDS

    os.environ["COLUMNS"] = "100"
    parts = []
    for name in COMMANDS:
        module = import_module(f"kd_det.commands.{name}")
        help_text = module.make_parser(f"kd-det {name}").format_help().strip()
        parts.append(f"## {name}\n\n```text\n{help_text}\n```")
    return "\n\n".join(parts)


def _file(path: str) -> str:
    return f"```python\n{(ROOT / path).read_text(encoding='utf-8').strip()}\n```"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows))


PARTS: dict[str, Callable[..., str]] = {
    "methods": _methods,
    "names": _names,
    "members": _members,
    "commands": _commands,
    "file": _file,
}


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
