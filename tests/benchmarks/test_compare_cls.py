"""benchmarks/compare_cls.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch
from benchmark import run_benchmark
from small import ROOT


def test_methods_are_trained_and_tabled(tmp_path: Path):
    """A teacher, the student alone and the student taught, for an epoch; then again."""
    out = tmp_path / "table.md"
    command = ["--methods", "review_nd", "--seeds", 0, "--epochs", 1, "--root", tmp_path / "runs"]
    done = run_benchmark("compare_cls", *command, "--out", out)
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
    test = [sys.executable, "-m", "kd_det", "test", str(config), str(checkpoint), *map(str, places)]
    subprocess.run(test, cwd=ROOT, check=True, capture_output=True)
    found = json.loads((tmp_path / "metrics.json").read_text())["accuracy/top1"]
    assert rows[2][1] == f"{found:.2f}"
    (tmp_path / "teacher.pth").rename(tmp_path / "runs" / "teacher" / "epoch_1.pth")

    again = run_benchmark("compare_cls", *command, "--out", out)
    assert again.stdout.count("done already") == 3 and out.read_text() == table
