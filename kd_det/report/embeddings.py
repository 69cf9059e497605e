"""Embeddings of annotated boxes or images: the inputs of a model's layer of class logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.structures import InstanceData
from torch import Tensor, nn


def embedding_layer(model: Any) -> nn.Module | None:
    """Find the layer whose inputs are the embeddings; None where a model has no such layer.

    ``fc_cls`` of a two-stage detector's last box head, or a classifier's ``head.fc``.
    """
    from kd_det.algorithms import heads

    if hasattr(model, "roi_head"):
        try:
            heads.require_two_stage(model, "model")
        except TypeError:
            return None
        return heads.box_heads(model)[-1].fc_cls
    layer = getattr(getattr(model, "head", None), "fc", None)
    return layer if isinstance(layer, nn.Module) else None


@torch.no_grad()
def embed(
    model: Any, data: dict[str, Any], objects: Sequence[tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    """Compute embeddings ``[n, D]`` and classes ``[n]`` of a batch; empty where a model has none.

    Args:
        model: A detector or classifier in eval mode.
        data: The batch after its data preprocessor.
        objects: For a detector, boxes ``[m, 4]`` of each image in pixels of its file, and their
            classes ``[m]``.
    """
    layer = embedding_layer(model)
    boxes = hasattr(model, "roi_head")
    if layer is None or (boxes and not sum(len(labels) for _, labels in objects)):
        return np.zeros((0, 0), np.float32), np.zeros(0, np.int64)
    seen: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        labels = _score_boxes(model, data, objects) if boxes else _score_images(model, data)
    finally:
        handle.remove()
    return seen[0].float().cpu().numpy(), labels


def _score_boxes(
    model: Any, data: dict[str, Any], objects: Sequence[tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    from kd_det.algorithms import heads, roi

    samples = []
    for sample, (boxes, labels) in zip(data["data_samples"], objects):
        # Not the sample's own boxes: many pipelines read them after they resize the image.
        scale = np.tile(np.asarray(sample.metainfo["scale_factor"], np.float32)[:2], 2)
        sample = type(sample)(metainfo=sample.metainfo)
        device = data["inputs"].device
        sample.gt_instances = InstanceData(
            bboxes=torch.from_numpy(boxes * scale).to(device),
            labels=torch.from_numpy(labels).to(device),
        )
        samples.append(sample)
    stage = "last" if heads.is_cascade(model) else None
    (found,) = roi.score_ground_truth(model, data["inputs"], samples, stage)
    return found.cpu().numpy()


def _score_images(model: Any, data: dict[str, Any]) -> np.ndarray:
    model(**data, mode="predict")
    return np.array([int(sample.gt_label) for sample in data["data_samples"]], np.int64)


def unit(rows: np.ndarray) -> np.ndarray:
    """Divide rows ``[n, D]`` by their lengths; a row of zeros stays zero."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)


def cosines(embeddings: np.ndarray, labels: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Compute the cosine of each embedding to its class mean, ``[n, D], [n], [C, D] -> [n]``."""
    return (unit(embeddings) * unit(means)[labels]).sum(1)
