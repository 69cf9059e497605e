"""Pages name files that exist, and translations have the same code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from snippets import PAGES, ROOT, blocks

TRANSLATIONS = [
    (page.with_name(page.name.replace(".zh-CN", "").replace("_zh-CN", "")), page)
    for page in PAGES
    if "zh-CN" in page.name
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_it_names_exist(page: Path):
    text = page.read_text(encoding="utf-8")
    named = r"(?<![\w/.-])(?:configs|tools|benchmarks|requirements|kd_det|docs|tests)/[\w./-]+\w"
    for path in re.findall(named, text):
        assert (ROOT / path).exists(), path
    for target in re.findall(r"\]\(((?!https?:|#)[^)]+)\)", text):
        assert (page.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("original,translation", TRANSLATIONS, ids=lambda page: page.name)
def test_a_translation_has_the_same_code(original: Path, translation: Path):
    assert blocks(translation) == blocks(original)
