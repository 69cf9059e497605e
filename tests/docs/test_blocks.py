"""Every code block and every command of README and docs is run, or parsed by its reader.

- Python that is a config is read by MMEngine; each part of ours or of MMRazor's that it names has
  the arguments that it is given, and hooks, losses and connectors are built.
- Other Python is executed, in a folder with a small student, teacher and data set.
- Commands go through the parser of the tool that they call, and the config that they name is read,
  with what they override. ``tools/dist_train.sh`` is run with ``echo`` in Python's place.

What needs several GPUs, Slurm, a download or hours is not run: of such a command, all but the
launcher's own options is checked.
"""

from __future__ import annotations

import argparse
import inspect
import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import Registry
from mmengine.runner import Runner
from snippets import PAGES, ROOT, Block, blocks, commands, workspace

import kd_det.registry as registry
from kd_det.algorithms.speed import Speed
from kd_det.commands import run
from kd_det.config_files import read_config

REGISTRIES = [each for each in vars(registry).values() if isinstance(each, Registry)]
LANGUAGES = {"python", "bash", "text", "yaml", "bibtex"}
# Commands of the shell and of others, which are not ours to check.
OTHERS = {"bash", "source", "cd", "git", "export", "make", "mim", "pip", ".venv/bin/pre-commit"}
# Named in a command, made by an earlier one or by the reader.
MADE = ("work_dirs/", "my_")


class Parsed(BaseException):
    """Carries what a tool's parser made of a command line out of the tool."""


@pytest.fixture
def place(
    request, tmp_path: Path, digits: Path, teacher_ckpt: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    workspace(tmp_path, request.param, digits, teacher_ckpt)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setenv("LOCAL_RANK", "0")
    return request.param


def pages_with(language: str) -> Any:
    """The pages with blocks of a language, but for translations: they have the same."""
    originals = [page for page in PAGES if "zh-CN" not in page.name]
    found = [
        page
        for page in originals
        if any(each.language == language for each in blocks(page))
        or (language == "bash" and commands(page))
    ]
    return pytest.mark.parametrize(
        "place", found, ids=lambda page: str(page.relative_to(ROOT)), indirect=True
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_say_their_language(page: Path):
    assert {b.language for b in blocks(page)} <= LANGUAGES
    assert page.read_text(encoding="utf-8").count("\n```") % 2 == 0


@pages_with("python")
def test_python(place: Path):
    for each in blocks(place):
        if each.language == "python":
            check_parts(config_of(each) or executed(each))


def config_of(each: Block) -> dict | None:
    """What MMEngine reads from a block that is a config."""
    return Config.fromfile(each.file).to_dict() if each.file else None


def executed(each: Block) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(each.text, "block", "exec"), names)
    return {name: value for name, value in names.items() if not name.startswith("_")}


def check_parts(value: Any) -> None:
    """Each part that a registry of ours or of MMRazor's holds takes the arguments it is given."""
    for part in parts(value):
        cls = find(part["type"])
        given = {k: v for k, v in part.items() if k != "type" and not k.startswith("_")}
        inspect.signature(cls).bind_partial(**given)
        Speed.of(given.get("speed"))
        if issubclass(cls, Hook) or cls.__module__.startswith(("kd_det.losses", "kd_det.connect")):
            cls(**given)


def parts(value: Any) -> Iterator[Mapping]:
    if isinstance(value, Mapping) and str(value.get("type")).startswith(("kd_det.", "mmrazor.")):
        yield value
    if isinstance(value, (Mapping, list, tuple)):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from parts(each)


def find(name: str) -> type:
    import mmrazor.registry as razor
    from mmrazor.utils import register_all_modules

    register_all_modules(False)
    scope, _, short = name.partition(".")
    theirs = [each for each in vars(razor).values() if isinstance(each, Registry)]
    for each in REGISTRIES if scope == "kd_det" else theirs:
        if (cls := each.get(short) or each.get(f"{short}Recorder")) is not None:
            return cls
    raise AssertionError(f"there is no {name}")


@pages_with("bash")
def test_bash(place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    text = "\n".join(b.text for b in blocks(place) if b.language == "bash")
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0
    for words in commands(place):
        check_command(words)


def parse_and_stop(parser: argparse.ArgumentParser, args: Any = None) -> None:
    raise Parsed(ORIGINAL(parser, args))


ORIGINAL = argparse.ArgumentParser.parse_args


def check_command(words: list[str]) -> None:
    while re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    program, *rest = words
    python = program in ("python", ".venv/bin/python")
    if python and rest[0] == "-m":
        # Looking for pip replaces distutils, of which setuptools warns.
        assert rest[1] == "pip" or find_spec(rest[1])
    elif python:
        check_tool(rest[0], rest[1:])
    elif program == "kd-det":
        check_arguments(lambda: run(rest[0], rest[1:]), program, rest)
    elif program == "tools/dist_train.sh":
        launcher = {"PYTHON": "echo", "PATH": "/usr/bin:/bin"}
        launched = subprocess.check_output(words, env=launcher, text=True).split()
        tool = launched.index("tools/train.py")
        check_tool(launched[tool], launched[tool + 1 :])
    elif program == "srun":
        check_command(rest[rest.index("python") :])
    else:
        assert program in OTHERS, f"nothing checks {words}"


def check_tool(tool: str, args: list[str]) -> None:
    """Run a tool up to its parsed arguments, and read the config that they name."""
    given, sys.argv = sys.argv, [tool, *args]
    try:
        check_arguments(lambda: runpy.run_path(tool, run_name="__main__"), tool, args)
    finally:
        sys.argv = given


def check_arguments(parse: Callable[[], Any], command: str, args: list[str]) -> None:
    """Parse the arguments of a command, and read the config that they name."""
    try:
        parse()
    except Parsed as parsed:
        check_config(parsed.args[0])
    except SystemExit as stopped:
        assert stopped.code == 0, f"{command} {args}"


def check_config(args: argparse.Namespace) -> None:
    name = getattr(args, "config", None)
    if name is None or name.isupper():  # CONFIG stands for any
        return
    if not Path(name).exists() and name.startswith(MADE):
        return
    cfg = read_config(name, getattr(args, "method", None))
    known = cfg.keys() | inspect.signature(Runner).parameters
    assert {key.split(".")[0] for key in args.cfg_options or {}} <= known
    cfg.merge_from_dict(args.cfg_options or {})
    check_parts(cfg.to_dict())
