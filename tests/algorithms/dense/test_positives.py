"""Positives are those of the head's own assigner, wherever the head puts them."""

from __future__ import annotations

from typing import Any

import pytest
import small_dense
import torch
from mmengine.logging import MessageHub
from small_dense import batch, detector
from small_heads import fresh
from torch import Tensor, nn

from kd_det.algorithms import BoxesRecorder, PositivesRecorder, WiringError
from kd_det.losses.ld import diou

# The item of what get_targets returns that has the labels of each level.
LABELS = {"retinanet": 0, "gfl": 1, "atss": 1, "fcos": 0, "fcos_normed": 0, "rtmdet": 1}


def spy(head: Any, name: str) -> list[Any]:
    """Results of a method of a head."""
    seen: list[Any] = []
    original = getattr(head, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        seen.append(original(*args, **kwargs))
        return seen[-1]

    setattr(head, name, call)
    return seen


def record(model: nn.Module, region: float | None = None) -> tuple[list[Tensor], list[Tensor]]:
    recorder = PositivesRecorder("bbox_head", region)
    recorder.initialize(model)
    inputs, samples = batch()
    with recorder:
        model.loss(inputs, fresh(samples))
    assert "loss_by_feat" not in vars(model.bbox_head)
    return recorder.get_record_data()


def rows(positives: list[Tensor]) -> set[tuple[int, ...]]:
    """(level, image, row, column, class) of each."""
    return {(level, *row) for level, at in enumerate(positives) for row in at.tolist()}


@pytest.mark.parametrize("name", LABELS)
def test_equal_the_targets_of_the_head(name):
    model = detector(name)
    targets = spy(model.bbox_head, "get_targets")
    sizes: list = []
    model.bbox_head.register_forward_hook(lambda _, __, out: sizes.extend(x.shape for x in out[0]))
    found = record(model)[0]
    expected = set()
    for level, labels in enumerate(targets[0][LABELS[name]]):
        images, _, height, width = sizes[level]
        labels = labels.reshape(images, height, width, -1)
        for n, y, x, a in (labels < small_dense.CLASSES).nonzero().tolist():
            expected.add((level, n, y, x, int(labels[n, y, x, a])))
    assert len(expected) >= 3
    assert rows(found) == expected
    assert all(len(at.unique(dim=0)) == len(at) for at in found)


def test_equal_the_targets_of_yolox():
    # Its loss_cls gets positives alone.
    model = detector("yolox")
    targets = spy(model.bbox_head, "_get_targets_single")
    found = record(model)[0]
    expected = set()
    for n, (is_positive, qualities, *_) in enumerate(targets):
        labels = iter(qualities.argmax(dim=1).tolist())
        for prior in is_positive.nonzero().flatten().tolist():
            level, start, width = (
                (0, 0, 8) if prior < 64 else (1, 64, 4) if prior < 80 else (2, 80, 2)
            )
            expected.add(
                (level, n, (prior - start) // width, (prior - start) % width, next(labels))
            )
    assert len(expected) >= 3
    assert rows(found) == expected


@pytest.mark.parametrize("name", ["paa", "vfnet", "ddod", "tood", "yolov3"])
def test_lie_inside_of_objects_of_their_class(name):
    MessageHub.get_current_instance().update_info("epoch", 0)  # TOOD asks for it
    found = record(detector(name))[0]
    _, samples = batch()
    assert sum(map(len, found)) > 0
    sides = [8, 4, 2, 1, 1] if len(found) == 5 else [2, 4, 8]
    for side, at in zip(sides, found):
        for n, y, x, label in at.tolist():
            objects = samples[n].gt_instances
            boxes = objects.bboxes[objects.labels == label]
            stride = small_dense.SIDE / side
            # PAA's anchors need not be centered in an object.
            reach = stride * (4 if name == "paa" else 1)
            x1, y1, x2, y2 = boxes[0].tolist()  # one object of each class
            assert x1 - reach <= (x + 0.5) * stride <= x2 + reach
            assert y1 - reach <= (y + 0.5) * stride <= y2 + reach


@pytest.mark.parametrize("name", ["retinanet", "gfl", "fcos", "rtmdet", "yolox"])
def test_without_gradients_they_are_the_same(name):
    model = detector(name)
    expected = rows(record(model)[0])
    with torch.no_grad():
        assert rows(record(model)[0]) == expected


def test_recording_changes_no_loss_and_no_gradient():
    inputs, samples = batch()

    def gradients(recorders: list[PositivesRecorder]) -> list[Tensor]:
        model = detector("gfl")
        for recorder in recorders:
            recorder.initialize(model)
            recorder.__enter__()
        sum(sum(x) for x in model.loss(inputs, fresh(samples)).values()).backward()
        for recorder in recorders:
            recorder.__exit__(None, None, None)
        return [p.grad for p in model.parameters() if p.grad is not None]

    expected = gradients([])
    found = gradients([PositivesRecorder("bbox_head", 0.25)])
    assert len(expected) == len(found) > 50
    assert all(map(torch.equal, expected, found))


def test_some_levels():
    model = detector("yolox")
    inputs, samples = batch()
    some, boxes = PositivesRecorder("bbox_head", levels=[0, 2]), BoxesRecorder("bbox_head", [0, 2])
    for recorder in (some, boxes):
        recorder.initialize(model)
    with some, boxes:
        model.loss(inputs, fresh(samples))
    every = record(model)[0]
    assert all(map(torch.equal, some.get_record_data(data_idx=0), [every[0], every[2]]))
    assert [x.shape[-1] for x in boxes.get_record_data()] == [8, 2]


def test_an_image_without_objects_has_none():
    model = detector("yolox")
    inputs, samples = batch()
    for sample in samples:
        sample.gt_instances = sample.gt_instances[:0]
    recorder = PositivesRecorder("bbox_head")
    recorder.initialize(model)
    with recorder:
        model.loss(inputs, samples)
    assert [x.shape for x in recorder.get_record_data(data_idx=0)] == [(0, 4)] * 3


def test_many_classes_are_exact_in_half_precision():
    # 1203 classes, more than bfloat16 can tell apart.
    from kd_det.algorithms.dense.positives import _send_back

    maps = [torch.zeros(2, 2406, 3, 4, dtype=torch.bfloat16).requires_grad_()]
    pred = maps[0].permute(0, 2, 3, 1).reshape(-1, 1203)
    labels = torch.full((48,), -1)
    labels[torch.tensor([5, 6, 47])] = torch.tensor([1202, 128, 127])
    (found,) = _send_back(pred, labels, maps)
    assert sorted(found.tolist()) == [[0, 0, 2, 1202], [0, 0, 3, 128], [1, 2, 3, 127]]


def test_the_region_lies_around_the_positives():
    model = detector("gfl")
    positives, region = record(model, region=0.25)
    assert not {x[:4] for x in rows(positives)} & {x[:4] for x in rows(region)}
    assert len(rows(region)) > 10
    _, samples = batch()
    sizes = [(8, 8), (4, 4), (2, 2), (1, 1), (1, 1)]
    priors = model.bbox_head.prior_generator.grid_priors(sizes, device="cpu")
    for level, at in enumerate(region):
        for n, y, x, label in at.tolist():
            objects = samples[n].gt_instances
            overlap = diou(priors[level], objects.bboxes)[y * sizes[level][1] + x]
            assert overlap.max() > 0
            assert label in objects.labels.tolist()
    assert all(len(x) == 0 for x in record(model)[1])


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # mmdet's own
def test_heads_that_are_not_supported_are_named():
    with pytest.raises(TypeError, match=r"the label of each position.* is a FreeAnchorRetinaHead"):
        PositivesRecorder("bbox_head").initialize(detector("free_anchor"))
    with pytest.raises(TypeError, match=r"one anchor for each position.* found a RetinaHead"):
        record(detector("retinanet"), region=0.25)
    with pytest.raises(WiringError, match=r"'head', but the detector GFL has no .*bbox_head"):
        PositivesRecorder("head").initialize(detector("gfl"))
    with pytest.raises(TypeError, match="'neck' is a FPN"):
        PositivesRecorder("neck").initialize(detector("gfl"))


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # mmdet's own
def test_a_head_of_an_unknown_kind_is_named_in_its_first_step(monkeypatch):
    monkeypatch.setattr("kd_det.algorithms.dense.positives.OTHERWISE", ())
    with pytest.raises(TypeError, match=r"FreeAnchorRetinaHead .* did not call its loss_cls"):
        record(detector("free_anchor"))
