"""kd-det convert_mdistiller."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch


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
