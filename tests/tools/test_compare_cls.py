"""tools/compare_cls.py and tools/convert_mdistiller.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from command_line import run_process


def test_methods_are_trained_and_tabled(tmp_path: Path):
    """A teacher, the student alone and the student taught, for an epoch; then again."""
    out = tmp_path / "table.md"
    command = ["--methods", "review_nd", "--seeds", 0, "--epochs", 1, "--root", tmp_path / "runs"]
    done = run_process("compare_cls", *command, "--out", out)
    assert done.returncode == 0, done.stderr[-2000:]
    table = out.read_text()
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| ")]
    assert [row[0].strip("| ") for row in rows] == ["method", "plain", "review_nd"]
    for name, row in (("plain_s0", rows[1]), ("review_nd_s0", rows[2])):
        (log,) = (tmp_path / "runs" / name).glob("*/vis_data/scalars.json")
        entries = map(json.loads, log.read_text().splitlines())
        (accuracy,) = [e["accuracy/top1"] for e in entries if "accuracy/top1" in e]
        assert row[1] == f"{accuracy:.2f}"
    assert (tmp_path / "runs" / "review_nd_s0" / "class_centers.safetensors").is_file()
    state = torch.load(tmp_path / "runs" / "review_nd_s0" / "epoch_1.pth", weights_only=False)
    assert not any(key.startswith("teacher.") for key in state["state_dict"])

    # A student's checkpoint is evaluated without its teacher.
    config = tmp_path / "runs" / "configs" / "review_nd_s0.py"
    checkpoint = tmp_path / "runs" / "review_nd_s0" / "epoch_1.pth"
    (tmp_path / "runs" / "teacher" / "epoch_1.pth").rename(tmp_path / "teacher.pth")
    places = ["--work-dir", tmp_path / "test", "--out", tmp_path / "metrics.json"]
    assert run_process("test", config, checkpoint, *places).returncode == 0
    found = json.loads((tmp_path / "metrics.json").read_text())["accuracy/top1"]
    assert rows[2][1] == f"{found:.2f}"
    (tmp_path / "teacher.pth").rename(tmp_path / "runs" / "teacher" / "epoch_1.pth")

    again = run_process("compare_cls", *command, "--out", out)
    assert again.stdout.count("done already") == 3 and out.read_text() == table


def test_a_published_teacher_is_converted(tool, tmp_path: Path, capsys: pytest.CaptureFixture):
    weights = {"conv1.weight": torch.ones(1), "fc.bias": torch.zeros(2)}
    torch.save({"epoch": 240, "model": weights}, tmp_path / "ckpt_epoch_240.pth")
    tool("convert_mdistiller", tmp_path / "ckpt_epoch_240.pth", tmp_path / "new" / "r56.pth")
    state = torch.load(tmp_path / "new" / "r56.pth", weights_only=True)["state_dict"]
    assert state.keys() == {"backbone.conv1.weight", "head.fc.bias"}
    assert "2 tensors written" in capsys.readouterr().out


def test_what_is_no_published_teacher_is_refused(refusal, tmp_path: Path):
    out = tmp_path / "out.pth"
    assert "unpack its cifar_teachers.tar" in refusal("convert_mdistiller", tmp_path / "no", out)
    torch.save({"state_dict": {}}, tmp_path / "other.pth")
    message = refusal("convert_mdistiller", tmp_path / "other.pth", out)
    assert "expected a dict with the weights under 'model'" in message
    torch.save({"model": {"features.0.weight": torch.ones(1)}}, tmp_path / "vgg.pth")
    assert "features.0.weight" in refusal("convert_mdistiller", tmp_path / "vgg.pth", out)
    assert not out.exists()
