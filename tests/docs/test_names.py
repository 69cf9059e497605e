"""Pages name what is there, all of it where they promise so, and translations keep up."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from snippets import PAGES, ROOT, blocks
from test_blocks import REGISTRIES

from kd_det.algorithms.speed import Speed
from kd_det.pairing.methods import METHODS

TRANSLATIONS = [
    (page.with_name(page.name.replace(".zh-CN", "").replace("_zh-CN", "")), page)
    for page in PAGES
    if "zh-CN" in page.name
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_it_names_are_there(page: Path):
    text = page.read_text(encoding="utf-8")
    named = r"(?<![\w/.-])(?:configs|tools|benchmarks|requirements|kd_det|docs|tests)/[\w./-]+\w"
    for path in re.findall(named, text):
        assert (ROOT / path).exists(), path
    for target in re.findall(r"\]\(((?!https?:|#)[^)]+)\)", text):
        assert (page.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("original,translation", TRANSLATIONS, ids=lambda page: page.name)
def test_a_translation_has_the_same_code_and_figures(original: Path, translation: Path):
    assert blocks(translation) == blocks(original)
    ours, theirs = (page.read_text(encoding="utf-8") for page in (translation, original))
    for what in (r"^#+ ", r"^\|", r"\d+\.\d+"):
        found = [re.findall(what, text, re.M) for text in (ours, theirs)]
        if what.startswith("^"):
            assert len(found[0]) == len(found[1]), what
        else:
            assert sorted(found[0]) == sorted(found[1])


def names() -> set[str]:
    """All that a config can name as ``kd_det.<Name>``."""
    for registry in REGISTRIES:
        registry.import_from_location()
    found = [each for registry in REGISTRIES for each in registry.module_dict.values()]
    ours = {each.__name__ for each in found if each.__module__.startswith("kd_det.")}
    return {f"kd_det.{name.removesuffix('Recorder')}" for name in ours}


def environment_variables() -> set[str]:
    text = "".join(p.read_text() for p in (ROOT / "tools").glob("*.sh"))
    return {"KD_DET_DEBUG", *re.findall(r"\$\{([A-Z_]+):-", text)}


def make_variables() -> set[str]:
    text = (ROOT / "Makefile").read_text()
    return set(re.findall(r"^(\w+) \?=", text, re.M)) | set(re.findall(r"\$\(if \$\((\w+)\)", text))


def test_every_option_stands_in_configs():
    text = (ROOT / "docs" / "configs.md").read_text(encoding="utf-8")
    options = {field.name for field in fields(Speed)} | {
        "init_student_from_teacher",
        "teacher_stage",
        "speed",
        "probe",
    }
    for name in names() | environment_variables() | make_variables() | options:
        assert re.search(rf"`(?:[^`\n]*[^\w`])?{re.escape(name)}\b", text), name


def test_every_method_is_explained():
    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    for name in METHODS:
        assert f"`{name}`" in text, name


def test_everything_that_a_config_can_name_is_in_the_reference():
    text = "".join(p.read_text() for p in (ROOT / "docs" / "reference").glob("*.md"))
    for name in names():
        assert re.search(rf"^::: kd_det\.[\w.]+\.{name.removeprefix('kd_det.')}", text, re.M), name
