"""tools/kill_and_resume.py, with few kills."""

from __future__ import annotations

import shutil

import pytest
from command_line import load_tool, run_process


def test_kills_change_nothing(tmp_path):
    root = tmp_path / "runs"
    done = run_process("kill_and_resume", "--kills", 3, "--root", root)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "3 kills changed nothing" in done.stdout
    assert "behind 1 x 'Distillation:'" in done.stdout and "x 'Epoch(train)'" in done.stdout


def test_a_difference_is_found(tool, tmp_path, monkeypatch):
    import torch

    monkeypatch.syspath_prepend(str(load_tool("train").__file__.rsplit("/", 1)[0]))
    study = load_tool("kill_and_resume")
    state = dict(state_dict={"a": torch.zeros(2)}, optimizer={}, param_schedulers=[])
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        torch.save(state, tmp_path / name / "epoch_2.pth")
    state["state_dict"]["a"][1] = 1e-7
    torch.save(state, tmp_path / "killed" / "epoch_2.pth")
    with pytest.raises(RuntimeError, match="differs in its state_dict"):
        study.compare(tmp_path / "whole", tmp_path / "killed", 2)
    (tmp_path / "killed" / "last_checkpoint").write_text(str(tmp_path / "gone.pth"))
    with pytest.raises(FileNotFoundError, match=r"gone\.pth', which is not there"):
        study.check_files(tmp_path / "killed")
    shutil.copy(tmp_path / "whole" / "epoch_2.pth", tmp_path / "gone.pth")
    study.check_files(tmp_path / "killed")
    (tmp_path / "killed" / "epoch_1.pth").write_bytes(b"half")
    with pytest.raises(RuntimeError, match=r"epoch_1\.pth is not whole"):
        study.check_files(tmp_path / "killed")
