"""Write a detector as an ONNX file that says how images are prepared for it."""

from __future__ import annotations

import inspect
import io
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kd_det.errors import MissingPackageError, UnsupportedTypeError
from kd_det.export.onnx.detector import OnnxDetector, normalisation
from kd_det.files import write_atomically

# The newest that torch 2.0 writes; RoiAlign samples as mmcv's since 16.
OPSET = 17
METADATA = "kd_det"
INPUTS, OUTPUTS = ("images", "sizes"), ("boxes", "scores", "labels")
# Height and width of the traced input where any size is allowed.
EXAMPLE_SIZE = (256, 320)


def export_onnx(
    model: Any,
    path: Path,
    *,
    classes: Sequence[str] | None = None,
    pipeline: Sequence[dict[str, Any]] = (),
    size: tuple[int, int] | None = None,
    batch: int | None = None,
    preprocess: bool = False,
) -> dict[str, Any]:
    """Write a detector of MMDetection as one ONNX file, in operators of ONNX's own.

    Args:
        model: The detector, with its weights.
        path: The file.
        classes: Names, for the metadata.
        pipeline: Transforms of the test images, whose scale and padding go into the metadata.
        size: Height and width of the input; None for any.
        batch: Images of a batch; None for any number.
        preprocess: Normalise inside; see :class:`kd_det.export.onnx.detector.OnnxDetector`.

    Returns:
        The metadata, which the file has as JSON under :data:`METADATA`.

    Raises:
        MissingPackageError: Without the package ``onnx``.
        UnsupportedTypeError: If a part of the detector has no counterpart in ONNX, with its name.
    """
    onnx = require("onnx")
    metadata = preparation(model, pipeline, size, preprocess)
    metadata.update(model=type(model).__name__, classes=list(classes or ()))
    detector = OnnxDetector(model, preprocess, metadata["pad"]).eval()
    height, width = size or EXAMPLE_SIZE
    shape = (height, width, 3) if preprocess else (3, height, width)
    device = next(model.parameters()).device
    # Two, since an axis of length 1 may be traced as constant.
    images = torch.rand(batch or 2, *shape, device=device)
    images = (images * 255).to(torch.uint8) if preprocess else images
    axes: dict[int, str] = {} if batch else {0: "batch"}
    if not size:
        axes |= {1: "height", 2: "width"} if preprocess else {2: "height", 3: "width"}
    dynamic = {name: {0: "batch"} for name in (*INPUTS, *OUTPUTS) if not batch}
    dynamic["images"] = axes
    sizes = torch.tensor([[height, width]], device=device).repeat(len(images), 1)
    graph = onnx.load_from_string(_trace(detector, (images, sizes), dynamic))
    onnx.helper.set_model_props(graph, {METADATA: json.dumps(metadata)})
    for output in graph.graph.output:  # the second axis is known, though traced as if it were not
        if not output.type.tensor_type.shape.dim[1].HasField("dim_value"):
            output.type.tensor_type.shape.dim[1].dim_param = "detections"
    onnx.checker.check_model(graph)
    write_atomically(path, graph.SerializeToString())
    return metadata


def require(package: str) -> Any:
    """Import an optional package, or raise ``MissingPackageError``."""
    import importlib

    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"--format onnx needs the package {package}: pip install 'kd_det[onnx]'"
        ) from error


def _trace(detector: nn.Module, inputs: tuple[torch.Tensor, ...], dynamic: dict[str, Any]) -> bytes:
    # Newer exporters need another package, and are no option for torch 2.0.
    named = inspect.signature(torch.onnx.export).parameters
    options: dict[str, Any] = {"dynamo": False} if "dynamo" in named else {}
    file = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        # About sizes that are constant on purpose, and the exporter's deprecation.
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                detector,
                inputs,
                file,  # type: ignore[arg-type]
                input_names=list(INPUTS),
                output_names=list(OUTPUTS),
                opset_version=OPSET,
                dynamic_axes=dynamic,
                **options,
            )
        except torch.onnx.errors.UnsupportedOperatorError as error:
            raise UnsupportedTypeError(f"the model cannot be exported to ONNX: {error}") from error
    return file.getvalue()


def preparation(
    model: Any, pipeline: Sequence[dict[str, Any]], size: tuple[int, int] | None, inside: bool
) -> dict[str, Any]:
    """Describe how images are prepared, as JSON values.

    ``scale`` (width, height) and ``keep_ratio`` are those of the resizing, ``size`` (height,
    width) that of a fixed input, ``divisor`` what the sides of another are multiples of; ``pad``
    is the colour of the padding at the right and bottom. ``mean`` and ``std`` are of pixels from
    0 to 255, in the order ``channels``.
    """
    preprocessor = model.data_preprocessor
    mean, std, swaps = normalisation(preprocessor)
    resize = _transform(pipeline, "Resize") or {}
    pad = _transform(pipeline, "Pad") or {}
    value = pad.get("pad_val", {})
    value = value.get("img", 0) if isinstance(value, dict) else value
    if not pad:  # MMEngine pads after normalising
        value = [m + s * preprocessor.pad_value for m, s in zip(mean * 3, std * 3)][:3]
    elif not isinstance(value, (list, tuple)):
        value = [value] * 3
    scale = resize.get("scale")
    return dict(
        layout="NHWC" if inside else "NCHW",
        channels="RGB" if swaps or inside else "BGR",
        normalised_inside=inside,
        mean=mean,
        std=std,
        pad=list(value)[::-1] if inside and not swaps else list(value),
        scale=list(scale) if scale else None,
        keep_ratio=bool(resize.get("keep_ratio", False)),
        size=list(size) if size else None,
        divisor=int(pad.get("size_divisor") or preprocessor.pad_size_divisor),
    )


def _transform(pipeline: Sequence[dict[str, Any]], kind: str) -> dict[str, Any] | None:
    found = [each for each in pipeline if str(each.get("type")).split(".")[-1] == kind]
    return found[0] if found else None
