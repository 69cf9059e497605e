"""Code blocks of README and docs, and the workspace that they take for granted."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

from small import ROOT, digits_config

PAGES = [
    *(ROOT / name for name in ("README.md", "README_zh-CN.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
FENCE = re.compile(r"^(`{3,})([^\n]*)\n(.*?)^\1$", re.M | re.S)
# A command with arguments, inside a sentence.
INLINE = re.compile(
    r"(?<!`)`((?:python (?:tools|benchmarks)/[^\s`]+|kd-det \w+|tools/dist_train\.sh|make) [^`]+)"
    r"`(?!`)"
)


class Block(NamedTuple):
    """A fenced block: its language, and its text."""

    language: str
    text: str

    @property
    def file(self) -> str | None:
        """The file that a config says it is, in a comment on its first line."""
        found = re.match(r"# (\w+\.py)\b", self.text)
        return found and found[1]


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    return [Block(m[2], m[3]) for m in FENCE.finditer(page.read_text(encoding="utf-8"))]


def block(page: Path, start: str) -> str:
    """The one Python block of a page that begins with ``start``."""
    (found,) = (b.text for b in blocks(page) if b.language == "python" and b.text.startswith(start))
    return found


def commands(page: Path) -> list[list[str]]:
    """The words of each command in a page, from ``bash`` blocks and from sentences."""
    lines = [
        line
        for each in blocks(page)
        if each.language == "bash"
        for line in each.text.replace("\\\n", " ").splitlines()
    ]
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    lines += [" ".join(command.split()) for command in INLINE.findall(text)]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def workspace(folder: Path, page: Path, digits: Path, teacher_ckpt: Path) -> None:
    """Make in ``folder`` what the blocks of a page speak of.

    Those are the repository's files, a teacher's weights, a set of data, two small detectors, and
    the configs that the page writes down itself.
    """
    for name in ("configs", "tools", "benchmarks", "requirements", "Makefile"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "data").mkdir()
    (folder / "data" / "fruit").symlink_to(digits)
    (folder / "my_teacher.pth").symlink_to(teacher_ckpt)
    for name in ("class_centers.safetensors", "R101_emb.json"):
        (folder / name).touch()
    for name, recipe in dict(my_student="plain", my_teacher="teacher").items():
        cfg = digits_config(recipe, digits, folder / "work_dirs" / name)
        cfg.train_dataloader.dataset.indices = 8
        cfg.dump(folder / f"{name}.py")
    for each in blocks(page):
        if each.language == "python" and each.file:
            (folder / each.file).write_text(each.text)
