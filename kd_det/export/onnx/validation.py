"""A run's validation images, prepared for an exported file as its metadata says."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from mmdet.registry import TRANSFORMS
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch import nn

from kd_det.errors import InvalidInputError
from kd_det.evaluation import fitting_evaluator
from kd_det.export.onnx.check import Run
from kd_det.progress import progress, quiet

# The most that mAP may differ.
MAP_TOLERANCE = 0.001


class Validation:
    """Validation data of a config.

    Args:
        cfg: With ``val_dataloader`` and ``val_evaluator``.
        size: Height and width of a fixed input, to which images are resized; None for the config's.
        batch: Images of a batch; None for the config's.

    Raises:
        InvalidInputError: If the config has no validation.
    """

    def __init__(self, cfg: Config, size: tuple[int, int] | None, batch: int | None) -> None:
        if not cfg.get("val_dataloader") or not cfg.get("val_evaluator"):
            raise InvalidInputError("the config has no validation data (val_dataloader)")
        init_default_scope(cfg.get("default_scope", "mmdet"))
        self.cfg, self.size = cfg, size
        loader = copy.deepcopy(cfg.val_dataloader)
        loader.update(num_workers=0, persistent_workers=False, drop_last=False)
        loader.update(sampler=dict(type="DefaultSampler", shuffle=False), batch_sampler=None)
        loader.batch_size = batch or loader.get("batch_size", 1)
        if size:
            transforms = pipeline(cfg, loader.dataset)
            for place, transform in enumerate(transforms):
                kind = str(transform["type"]).split(".")[-1]
                if kind == "Resize":
                    transforms[place] = _Into(size, transform)
                elif kind == "Pad":
                    kept = {k: v for k, v in transform.items() if k in ("type", "pad_val")}
                    transforms[place] = dict(kept, size=size[::-1])
        with quiet():
            self.loader: Any = Runner.build_dataloader(loader, seed=0)

    def inputs(
        self, metadata: dict[str, Any], images: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """A file's inputs of the first images."""
        for number, data in enumerate(self.loader):
            if number * self.loader.batch_size >= images:
                return
            yield self._prepare(data, metadata)

    def metrics(
        self, model: Any, run: Run, metadata: dict[str, Any]
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Evaluate PyTorch and the file on the same images with the same padding.

        Returns:
            Metrics of both, PyTorch's first.
        """
        first: Evaluator | None = None
        for data in progress(self.loader, "Evaluating PyTorch and the file"):
            kept = copy.deepcopy(data["data_samples"])
            images, sizes = self._prepare(data, metadata)
            theirs = self.predict(model, data)
            if first is None:
                base = Evaluator(self.cfg.val_evaluator)
                base.dataset_meta = self.loader.dataset.metainfo
                first = fitting_evaluator(base, theirs, "the student")
                second = fitting_evaluator(base, theirs, "the ONNX file")
            first.process(theirs, data)
            second.process(on_images(run(images, sizes), kept), data)
        count = len(self.loader.dataset)
        if first is None:
            raise InvalidInputError("--check-map needs validation images, found none")
        with quiet():
            return first.evaluate(count), second.evaluate(count)

    def predict(self, model: Any, data: dict[str, Any]) -> list[Any]:
        """PyTorch's predictions of a batch, which is padded to the fixed input where there is one.

        Images are normalised by the model's own preprocessor.
        """
        inputs = model.data_preprocessor(data)
        if self.size:
            _pad(inputs, self.size, model.data_preprocessor.pad_value)
        with torch.no_grad():
            return model(**inputs, mode="predict")

    def _prepare(
        self, data: dict[str, Any], metadata: dict[str, Any]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Images and sizes, filled up to a batch."""
        batch = self.loader.batch_size
        sizes = np.array([sample.img_shape[:2] for sample in data["data_samples"]], np.int64)
        return prepare(data["inputs"], metadata, batch), np.resize(sizes, (batch, 2))


class _Into:
    """Resizes into a fixed input; MMDetection's own scale would turn for a portrait."""

    def __init__(self, size: tuple[int, int], resize: dict[str, Any]) -> None:
        self.size = size
        self.transform = TRANSFORMS.build({**resize, "scale": size[::-1]})

    def __call__(self, results: dict[str, Any]) -> Any:
        if self.transform.keep_ratio:
            sides = results["img"].shape[:2]
            factor = min(limit / side for limit, side in zip(self.size, sides))
            height, width = (int(side * factor + 0.5) for side in sides)
            self.transform.scale = (width, height)
        return self.transform(results)


def pipeline(cfg: Config, dataset: Any = None) -> list[Any]:
    """Transforms of validation images, also of a dataset in another."""
    if dataset is None:
        dataset = (cfg.get("val_dataloader") or cfg.get("test_dataloader") or {}).get("dataset", {})
    while "pipeline" not in dataset and "dataset" in dataset:
        dataset = dataset["dataset"]
    return dataset.get("pipeline") or []


def prepare(images: Sequence[Any], metadata: dict[str, Any], batch: int) -> np.ndarray:
    """A file's input of resized images, uint8 BGR `[3, h, w]`, by its metadata alone.

    Raises:
        InvalidInputError: If an image is larger than a fixed input.
    """
    arrays = [np.asarray(each).transpose(1, 2, 0) for each in images]
    largest = [max(each.shape[axis] for each in arrays) for axis in (0, 1)]
    divisor = metadata["divisor"]
    size = metadata["size"] or [math.ceil(side / divisor) * divisor for side in largest]
    if any(side > limit for side, limit in zip(largest, size)):
        raise InvalidInputError(
            f"an image of height and width {largest} does not fit the input, {list(size)}: "
            "export with a size that holds it, or without one"
        )
    if metadata["channels"] == "RGB":
        arrays = [each[..., ::-1] for each in arrays]
    canvas = np.empty((batch, *size, 3), np.float32)
    canvas[:] = metadata["pad"]
    for place, each in zip(canvas, arrays):
        place[: each.shape[0], : each.shape[1]] = each
    if metadata["normalised_inside"]:
        return np.rint(canvas).astype(np.uint8)
    mean, std = (np.array(metadata[key], np.float32) for key in ("mean", "std"))
    return np.ascontiguousarray(((canvas - mean) / std).transpose(0, 3, 1, 2))


def _pad(data: dict[str, Any], size: Sequence[int], value: float) -> None:
    """Let a preprocessed batch have the height and width of a fixed input."""
    more = [side - own for side, own in zip(size, data["inputs"].shape[2:])]
    data["inputs"] = nn.functional.pad(data["inputs"], (0, more[1], 0, more[0]), value=value)
    for sample in data["data_samples"]:
        sample.set_metainfo(dict(batch_input_shape=tuple(size), pad_shape=tuple(size)))


def on_images(found: dict[str, np.ndarray], samples: Sequence[Any]) -> list[Any]:
    """Detections of a file as predictions in pixels of the images as they are on disk."""
    for index, sample in enumerate(samples):
        keep = found["scores"][index] > 0
        boxes = found["boxes"][index][keep]
        height, width = sample.img_shape[:2]
        limits = np.array([width, height, width, height], boxes.dtype)
        scale = np.tile(np.asarray(sample.scale_factor, boxes.dtype), 2)
        sample.pred_instances = InstanceData(
            bboxes=torch.from_numpy(np.clip(boxes, 0, limits) / scale),
            scores=torch.from_numpy(found["scores"][index][keep]),
            labels=torch.from_numpy(found["labels"][index][keep]),
        )
    return list(samples)
