"""The command line makes the set, says where it lies, and fails in one sentence."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
TOOL = REPOSITORY / "tools" / "make_digits_coco.py"
SMALL = ("--image-size", "32", "--train-images", "3", "--val-images", "2", "--seed", "5")


def run(*args: str, cwd: Path) -> subprocess.CompletedProcess:
    """The tool as a user runs it, from any folder."""
    paths = [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, str(TOOL), *args],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def main():
    """The tool's main function, to spare the start of a process."""
    spec = importlib.util.spec_from_file_location("make_digits_coco", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def test_makes_the_set_and_says_where_it_lies(tmp_path):
    result = run("--root", "data/digits", *SMALL, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    # Quiet but for one line, as the output is no terminal.
    (line,) = result.stdout.splitlines()
    assert line.startswith(f"{(tmp_path / 'data' / 'digits').resolve()}: made; ")
    assert "images in train/ (3) and val/ (2)" in line
    assert "annotations/instances_train.json and instances_val.json" in line
    assert len(list((tmp_path / "data" / "digits" / "train").glob("*.jpg"))) == 3


def test_finds_it_up_to_date_and_replaces_another_only_by_force(main, tmp_path, capsys):
    options = ["--root", str(tmp_path / "digits"), *SMALL]
    assert main(options) == 0 and ": made; " in capsys.readouterr().out
    assert main(options) == 0 and ": up to date; " in capsys.readouterr().out

    options += ["--val-images", "1"]
    assert main(options) == 1
    output = capsys.readouterr()
    assert output.out == ""
    (line,) = output.err.splitlines()
    assert "val_images 1" in line and "found" in line and "val_images 2" in line

    assert main([*options, "--force"]) == 0 and ": made; " in capsys.readouterr().out
    assert len(list((tmp_path / "digits" / "val").glob("*.jpg"))) == 1


def test_bad_argument_is_one_sentence(main, tmp_path, capsys):
    assert main(["--root", str(tmp_path / "digits"), "--image-size", "16"]) == 1
    expected = "make_digits_coco: image_size: expected an integer of 32 or more, found 16\n"
    assert capsys.readouterr().err == expected
    assert list(tmp_path.iterdir()) == []


def test_help_shows_an_example(main, capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "python tools/make_digits_coco.py --root data/digits-coco" in capsys.readouterr().out
