"""OpenVINO runs the ONNX file as it is, and detects what PyTorch does."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
from small import ROOT
from small_onnx import detector

pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("openvino", reason="OpenVINO is not installed (pip install openvino)")

from kd_det.export.onnx.check import compare
from kd_det.export.onnx.detector import OnnxDetector
from kd_det.export.onnx.file import export_onnx
from kd_det.export.onnx.runtime import OnnxSession, OpenVinoSession


@pytest.mark.parametrize("name", ["faster", "retina", "rtmdet"])
def test_detections_with_and_without_padding(name: str, tmp_path: Path) -> None:
    model = detector(name)
    export_onnx(model, tmp_path / "model.onnx")
    session = OpenVinoSession(tmp_path / "model.onnx")
    images = np.random.default_rng(1).standard_normal((2, 3, 128, 192), dtype=np.float32)
    for sizes in (None, np.array([[128, 150], [100, 192]])):
        result = compare(OnnxDetector(model), session, images, sizes)
        assert result.detections >= 30 and result.fits, result


def test_the_lines_of_the_docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^    ```python\n(    import openvino\n.*?)^    ```", text, re.M | re.S)
    export_onnx(detector("retina"), tmp_path / "student.onnx")
    monkeypatch.chdir(tmp_path)
    names = dict(images=np.ones((1, 3, 64, 96), np.float32), sizes=np.array([[64, 96]]))
    expected = OnnxSession(tmp_path / "student.onnx")(**names)
    exec(textwrap.dedent(code), names)
    np.testing.assert_allclose(names["scores"], expected["scores"], atol=1e-4)
