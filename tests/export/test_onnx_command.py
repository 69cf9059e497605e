"""kd-det export --format onnx writes one file, checked against PyTorch."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

from kd_det import commands
from kd_det.export.onnx import student
from kd_det.export.onnx.check import Comparison
from kd_det.export.onnx.runtime import OnnxSession


@pytest.fixture
def export(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def run(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["kd-det", "export", *map(str, arguments)])
        commands.main()

    return run


@pytest.mark.parametrize("options", [(), ("--size", 64, 128, "--batch-size", 1)])
def test_a_distilled_student_with_its_map(options, trained_runs, export, tmp_path, capsys) -> None:
    run = trained_runs["distilled"]
    export(run, "--format", "onnx", "--out", tmp_path / "s.onnx", "--check-map", *options)
    printed = capsys.readouterr().out
    assert "ONNX Runtime and PyTorch on validation images" in printed
    assert "coco/bbox_mAP: PyTorch 0." in printed
    assert "Average Precision" not in printed  # pycocotools, for each of both
    metadata = OnnxSession(tmp_path / "s.onnx").metadata
    assert metadata["model"] == "FasterRCNN" and len(metadata["classes"]) == 10
    assert metadata["scale"] == [64, 64]


def test_random_images_without_data(trained_runs, export, tmp_path, capsys) -> None:
    run = Path(shutil.copytree(trained_runs["plain"], tmp_path / "run"))
    config = next(run.glob("*.py"))
    config.write_text(config.read_text().replace("instances_val.json", "elsewhere.json"))
    export(run, "--format", "onnx", "--size", 64, 96, "--batch-size", 1)
    assert "on random images: " in capsys.readouterr().out
    session = OnnxSession(run / "student.onnx")
    assert session.session.get_inputs()[0].shape == [1, 3, 64, 96]


def test_a_file_that_detects_something_else_is_refused(
    trained_runs, export, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(student, "compare", lambda *_: Comparison(detections=10, unmatched=3))
    with pytest.raises(SystemExit, match="detects something else than PyTorch"):
        export(trained_runs["plain"], "--format", "onnx", "--out", tmp_path / "s.onnx")
