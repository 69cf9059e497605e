"""An exported file as a session of ONNX Runtime or OpenVINO."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kd_det.errors import UserError
from kd_det.export.onnx.file import INPUTS, METADATA, OUTPUTS, require


class OnnxRunError(UserError):
    """ONNX Runtime cannot load or run a file."""


class OnnxSession:
    """Runs a file on the CPU.

    Args:
        path: Of :func:`kd_det.export.onnx.file.export_onnx`.

    Raises:
        MissingPackageError: Without the package ``onnxruntime``.
        OnnxRunError: If it refuses the file, here or when it is run.
    """

    def __init__(self, path: Path) -> None:
        runtime = require("onnxruntime")
        options = runtime.SessionOptions()
        options.log_severity_level = 3  # shapes that are inferred late are no news
        self.path = path
        with self._refusals():
            self.session = runtime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        properties = self.session.get_modelmeta().custom_metadata_map
        self.metadata: dict[str, Any] = json.loads(properties[METADATA])

    def __call__(
        self, images: np.ndarray, sizes: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Boxes, scores and labels by name; ``sizes`` are the whole input's if not given."""
        with self._refusals():
            found = self.session.run(list(OUTPUTS), _feed(images, sizes))
        return dict(zip(OUTPUTS, found))

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # it has a class for each code, and no base that is public
            if not type(error).__module__.startswith("onnxruntime"):
                raise
            raise OnnxRunError(
                f"ONNX Runtime cannot run {self.path}: {str(error).splitlines()[0]} (a transformer "
                "may need a fixed input: --size H W --batch-size N)"
            ) from error


class OpenVinoSession:
    """Runs the same file by OpenVINO in float32, where that is installed.

    Raises:
        MissingPackageError: Without the package ``openvino``.
    """

    def __init__(self, path: Path) -> None:
        # By default it computes in bfloat16 on processors that can.
        precision = {"INFERENCE_PRECISION_HINT": "f32"}
        self.compiled = require("openvino").Core().compile_model(str(path), "CPU", precision)

    def __call__(
        self, images: np.ndarray, sizes: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Boxes, scores and labels by name; ``sizes`` are the whole input's if not given."""
        found = self.compiled(_feed(images, sizes))
        return {name: found[name] for name in OUTPUTS}


def whole(images: np.ndarray) -> np.ndarray:
    """Sizes `[B, 2]` of images that fill their input."""
    size = images.shape[1:3] if images.dtype == np.uint8 else images.shape[2:]
    return np.tile(np.array(size, np.int64), (len(images), 1))


def _feed(images: np.ndarray, sizes: np.ndarray | None) -> dict[str, np.ndarray]:
    return dict(zip(INPUTS, (images, whole(images) if sizes is None else sizes)))
