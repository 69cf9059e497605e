"""Each model is evaluated by what it predicts."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.structures import InstanceData
from torch import zeros

from kd_det.evaluation import fitting_evaluator

BOXES = dict(bboxes=zeros(1, 4), scores=zeros(1), labels=zeros(1))
MASKS = dict(**BOXES, masks=zeros(1, 8, 8))


class Metric(BaseMetric):
    """What CocoMetric has of options."""

    def __init__(self, metrics: list[str]) -> None:
        super().__init__()
        self.metrics = metrics
        self.results = ["of another model"]

    def process(self, data_batch: object, data_samples: object) -> None:
        self.results.append("own")

    def compute_metrics(self, results: list) -> dict:
        return {}


def predictions(**fields: object) -> list[SimpleNamespace]:
    return [SimpleNamespace(pred_instances=InstanceData(**fields))]


@pytest.mark.parametrize(
    ("asked", "found", "expected"),
    [
        (["bbox", "segm"], predictions(**BOXES), ["bbox"]),
        (["segm", "proposal"], predictions(**BOXES), ["proposal"]),
        (["segm"], predictions(**BOXES), ["bbox"]),
        (["bbox", "segm"], predictions(**MASKS), ["bbox", "segm"]),
        (["bbox"], predictions(**BOXES), ["bbox"]),
        (["segm"], [], ["segm"]),
        (["segm"], [SimpleNamespace(pred_sem_seg=None)], ["segm"]),
    ],
)
def test_metrics_of_masks_are_for_models_with_masks(asked, found, expected):
    evaluator = Evaluator([Metric(list(asked))])
    evaluator.dataset_meta = dict(classes=("apple",))
    (metric,) = fitting_evaluator(evaluator, found, "the teacher").metrics
    assert metric.metrics == expected and metric.dataset_meta == evaluator.dataset_meta
    assert metric.results == []
    metric.process(None, None)
    assert evaluator.metrics[0].results == ["of another model"]
    assert evaluator.metrics[0].metrics == asked
