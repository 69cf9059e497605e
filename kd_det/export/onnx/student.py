"""Export the student of a run to ONNX, and compare the file with PyTorch."""

from __future__ import annotations

import contextlib
import copy
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from kd_det.algorithms.checkpoint import load_weights, read_weights
from kd_det.errors import InvalidInputError, UserError
from kd_det.export.onnx.check import BOX_TOLERANCE, SCORE_TOLERANCE, compare
from kd_det.export.onnx.detector import OnnxDetector
from kd_det.export.onnx.file import EXAMPLE_SIZE, export_onnx, require
from kd_det.export.onnx.runtime import OnnxSession, OpenVinoSession, whole
from kd_det.export.onnx.validation import MAP_TOLERANCE, Validation, pipeline

CHECKED_IMAGES = 4


class ExportCheckError(UserError):
    """A written ONNX file detects something else than PyTorch."""


def export_student_onnx(
    checkpoint: Path,
    cfg: Config,
    path: Path,
    *,
    size: tuple[int, int] | None = None,
    batch: int | None = None,
    preprocess: bool = False,
    check_map: bool = False,
) -> None:
    """Write the file, compare it with PyTorch and print the result.

    Args:
        checkpoint: Of the run.
        cfg: The plain config of its student.
        path: The file to write.
        size: Height and width of the input; None for any.
        batch: Images of a batch; None for any number.
        preprocess: Whether images are normalised inside.
        check_map: Whether mAP is compared too, on the whole validation set.

    Raises:
        ExportCheckError: If the detections differ by more than the tolerances. The file stays.
        kd_det.errors.UnsupportedTypeError: If a part of the student has no counterpart in ONNX.
        kd_det.errors.MissingPackageError: Without ``onnx`` or ``onnxruntime``.
    """
    require("onnx")
    require("onnxruntime")
    init_default_scope(cfg.get("default_scope", "mmdet"))
    model = MODELS.build(copy.deepcopy(cfg.model)).eval()
    load_weights(model, str(checkpoint), "student")
    meta = read_weights(checkpoint, "student")[1].get("dataset_meta") or {}
    metadata = export_onnx(
        model,
        path,
        classes=meta.get("classes"),
        pipeline=pipeline(cfg),
        size=size,
        batch=batch,
        preprocess=preprocess,
    )
    session = OnnxSession(path)
    print(f"{metadata['model']} of {checkpoint} is in {path}")
    validation = None
    try:
        validation = Validation(cfg, size, batch)
        inputs, source = list(validation.inputs(metadata, CHECKED_IMAGES)), "validation"
    except (OSError, InvalidInputError) as error:
        if check_map:
            raise
        images = _random_images(metadata, batch)
        inputs, source = [(images, whole(images))], "random"
        print(f"checked on random images, since the validation images cannot be read: {error}")
    detector = OnnxDetector(model, preprocess, metadata["pad"])
    for name, run in _sessions(session, path).items():
        results = [compare(detector, run, *each) for each in inputs]
        print(f"{name} and PyTorch on {source} images: {'; '.join(map(str, results))}")
        if not all(result.fits for result in results):
            raise ExportCheckError(
                f"{name} detects something else than PyTorch in {path}: expected counterparts "
                f"with scores within {SCORE_TOLERANCE} and boxes within {BOX_TOLERANCE} pixels"
            )
    if check_map and validation is not None:
        _check_map(validation, model, session, metadata)


def _check_map(validation: Validation, model: Any, session: Any, metadata: Any) -> None:
    theirs, ours = validation.metrics(model, session, metadata)
    for name, value in theirs.items():
        print(f"{name}: PyTorch {value:.4f}, ONNX {ours[name]:.4f}")
    off = [name for name, value in theirs.items()
           if name.endswith("mAP") and abs(value - ours[name]) > MAP_TOLERANCE]  # fmt: skip
    if off:
        raise ExportCheckError(
            f"the ONNX file differs from PyTorch by more than {MAP_TOLERANCE} in {', '.join(off)}"
        )


def _sessions(session: OnnxSession, path: Path) -> dict[str, Any]:
    """Runtimes that are installed."""
    found: dict[str, Any] = {"ONNX Runtime": session}
    with contextlib.suppress(ImportError):
        found["OpenVINO"] = OpenVinoSession(path)
    return found


def _random_images(metadata: dict[str, Any], batch: int | None) -> np.ndarray:
    height, width = metadata["size"] or EXAMPLE_SIZE
    generator = np.random.default_rng(0)
    if metadata["normalised_inside"]:
        return generator.integers(0, 256, (batch or 1, height, width, 3), dtype=np.uint8)
    return generator.standard_normal((batch or 1, 3, height, width), dtype=np.float32)
