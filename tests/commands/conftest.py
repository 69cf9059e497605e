"""Runs the command lines in this process, which spares imports."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from small import digits_config

from kd_det import commands
from kd_det.commands import common


def run_tool(patch: pytest.MonkeyPatch, name: str, *arguments: object) -> None:
    patch.setenv("LOCAL_RANK", "0")  # the commands set it
    patch.delenv(common.DEBUG_VARIABLE, raising=False)
    patch.setattr(sys, "argv", ["kd-det", name, *map(str, arguments)])
    commands.main()


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``tool("train", *arguments)`` in this process; errors end it with SystemExit."""
    return partial(run_tool, monkeypatch)


@pytest.fixture
def refusal(tool: Callable[..., None], capsys: pytest.CaptureFixture) -> Callable[..., str]:
    """The message with which a tool ends; nothing of it is a traceback, and its code is 1."""

    def run(name: str, *arguments: object) -> str:
        with pytest.raises(SystemExit) as caught:
            tool(name, *arguments)
        message = caught.value.code
        # With a text, SystemExit prints it to stderr and exits with 1.
        assert isinstance(message, str)
        assert "Traceback" not in message + capsys.readouterr().err
        assert message.count("\n") == 1 and message.endswith("to see where it was raised)")
        return message.splitlines()[0]

    return run


def write_config(
    folder: Path, name: str, digits: Path, teacher_ckpt: Path, **options: object
) -> Path:
    """A small recipe as a file: two iterations of four images."""
    cfg = digits_config(name, digits, folder / "work")
    if "teacher" in cfg.model:
        cfg.model.teacher_ckpt = str(teacher_ckpt)
    cfg.train_dataloader.dataset.indices = 8
    cfg.default_hooks.logger.interval = 1
    cfg.merge_from_dict(options)
    cfg.dump(folder / f"{name}.py")
    return folder / f"{name}.py"


@pytest.fixture(scope="session")
def recipe(digits: Path, teacher_ckpt: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(tmp_path_factory.mktemp("recipe"), "review_nd_kd", digits, teacher_ckpt)


@pytest.fixture
def config_file(digits: Path, teacher_ckpt: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes a small recipe with further options."""

    def write(name: str = "review_nd_kd", **options: object) -> Path:
        return write_config(tmp_path, name, digits, teacher_ckpt, **options)

    return write


@pytest.fixture(scope="session")
def trained(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Work directory of one epoch of ``kd-det train``."""
    work_dir = tmp_path_factory.mktemp("train") / "work"
    with pytest.MonkeyPatch.context() as patch:
        run_tool(patch, "train", recipe, "--work-dir", work_dir)
    return work_dir
