"""Evaluate each model by what it predicts."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import Evaluator
from mmengine.logging import print_log
from mmengine.model import BaseModel


@torch.no_grad()
def fit_evaluator(loop: Any, model: BaseModel, who: str) -> None:
    """Let a validation or test loop evaluate by what ``model`` predicts for its first image."""
    loader = loop.dataloader
    predictions = model.eval().test_step(loader.collate_fn([loader.dataset[0]]))
    loop.evaluator = fitting_evaluator(loop.evaluator, predictions, who)


def fitting_evaluator(evaluator: Evaluator, predictions: Sequence[Any], who: str) -> Evaluator:
    """The evaluator for a model of which ``predictions`` are some, with nothing evaluated yet.

    COCO's metrics of masks (``segm``) fail for a model that predicts boxes alone, such as a
    Faster R-CNN that teaches a Mask R-CNN. They are left out then; where nothing is left, boxes
    are evaluated. The evaluator that is given stays as it is.

    Args:
        evaluator: A run's, built for the model that it trains.
        predictions: Data samples of any batch, as ``val_step`` or ``test_step`` returns them.
        who: The model in messages, as ``'the teacher'``.
    """
    fitting = copy.copy(evaluator)
    fitting.metrics = [copy.copy(metric) for metric in evaluator.metrics]
    boxes_alone = bool(predictions) and all(_has_boxes_alone(each) for each in predictions)
    for metric in fitting.metrics:
        metric.results = []
        asked = getattr(metric, "metrics", None)
        if boxes_alone and isinstance(asked, list) and "segm" in asked:
            metric.metrics = [name for name in asked if name != "segm"] or ["bbox"]
            print_log(
                f"{who} predicts no masks, so it is evaluated by {', '.join(metric.metrics)}",
                logger="current",
            )
    return fitting


def _has_boxes_alone(sample: Any) -> bool:
    found = getattr(sample, "pred_instances", None)
    return found is not None and "bboxes" in found and "masks" not in found
