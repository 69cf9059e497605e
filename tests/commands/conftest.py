"""Runs the command lines: in this process to spare imports, or as a user does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import RECIPE, run_process, small_options
from small import digits_config

from kd_det import commands
from kd_det.commands import common


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``tool("train", *arguments)`` in this process; errors end it with SystemExit."""
    monkeypatch.setenv("LOCAL_RANK", "0")  # the commands set it
    monkeypatch.delenv(common.DEBUG_VARIABLE, raising=False)

    def run(name: str, *arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["kd-det", name, *map(str, arguments)])
        commands.main()

    return run


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


@pytest.fixture(scope="session")
def trained(
    digits: Path, teacher_ckpt: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess]:
    """Work directory and process of one epoch of ``kd-det train``."""
    work_dir = tmp_path_factory.mktemp("train") / "work"
    options = small_options(digits, teacher_ckpt)
    return work_dir, run_process("train", RECIPE, "--work-dir", work_dir, "--cfg-options", *options)


@pytest.fixture
def config_file(digits: Path, teacher_ckpt: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes the small recipe with further options to a file."""

    def write(name: str = "review_nd_kd", **options: object) -> Path:
        cfg = digits_config(name, digits, tmp_path / "work")
        if name == "review_nd_kd":
            cfg.model.teacher_ckpt = str(teacher_ckpt)
        cfg.train_dataloader.dataset.indices = 8
        cfg.merge_from_dict(options)
        cfg.dump(tmp_path / f"{name}.py")
        return tmp_path / f"{name}.py"

    return write
