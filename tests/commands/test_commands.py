"""``kd-det COMMAND``: the list, each help, and the same by tools/ and ``python -m kd_det``."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys

import pytest
from small import ROOT

from kd_det import commands
from kd_det.commands import COMMANDS, common
from kd_det.version import __version__

# What --help must not wait for.
HELP = """
import sys
from kd_det.commands import main
for words in ([], *([name] for name in sys.argv[1:])):
    try:
        main([*words, "--help"])
    except SystemExit as stopped:
        assert stopped.code == 0
heavy = {"torch", "mmengine", "mmdet", "mmcv", "mmrazor", "cv2", "numpy", "rich"}
assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
"""


@pytest.mark.parametrize("arguments", [["--help"], [], ["teach"], ["--teach"]])
def test_help_and_an_unknown_command_show_the_list(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        commands.main(arguments)
    helped = arguments == ["--help"]
    assert caught.value.code == (0 if helped else 2)
    shown = capsys.readouterr()[0 if helped else 1]
    for name, does in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(does)}$", shown, re.M)


def test_the_version(capsys):
    with pytest.raises(SystemExit):
        commands.main(["--version"])
    assert capsys.readouterr().out == f"kd_det {__version__}\n"


def test_help_imports_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-c", HELP, *COMMANDS],
        cwd=ROOT, capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_tool_with_an_example(capsys, monkeypatch, name):
    script = f"tools/{common.SCRIPTS.get(name, name)}.py"
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    assert caught.value.code == 0
    assert re.search(rf"examples?:\n  python {script}\b", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("started", "words"),
    [
        ("tools/train.py", ["python", "tools/export_student.py"]),
        ("/x/kd_det/.mim/tools/train.py", ["kd-det", "export"]),  # by mim
        ("/usr/bin/kd-det", ["kd-det", "export"]),
        ("/x/kd_det/__main__.py", ["python", "-m", "kd_det", "export"]),
    ],
)
def test_the_next_command_is_called_as_this_one_was(monkeypatch, started, words):
    monkeypatch.setattr(sys, "argv", [started])
    assert common.call_words("export") == words


def test_arguments_beyond_the_locale_are_understood(tmp_path):
    """As where neither locale nor Python's UTF-8 mode is set."""
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "kd_det", "digits", "--image-size", "32"]
    command += ["--train-images", "1", "--val-images", "1", "--root"]

    def make(folder: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [*command, folder], cwd=ROOT, env=environment, capture_output=True, check=False
        )

    done = make(f"{tmp_path}/水果")
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path}/水果: made".encode() in done.stdout
    assert (tmp_path / "水果" / "train").is_dir()
    done = make(os.fsdecode(f"{tmp_path}/".encode() + b"\xff"))
    assert done.returncode == 1 and b"expected arguments in UTF-8, found" in done.stderr


def test_messages_point_to_files_that_exist():
    for path in (ROOT / "kd_det").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r"\b(?:docs|configs|tools)/[\w/.-]+\.(?:md|py|sh)\b", text):
            assert (ROOT / name).is_file(), f"{path} names {name}"
