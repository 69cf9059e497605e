"""Losses on predictions of shared queries: hand-worked numbers, slow forms, limits."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from kd_det.losses import QueryBoxLoss, QueryKDLoss, query_box_loss, query_kd_loss


def logits(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(*shape, generator=generator, dtype=torch.float64)


def boxes(seed: int, *shape: int) -> Tensor:
    """Centre and size of boxes, relative to the image."""
    generator = torch.Generator().manual_seed(seed)
    return 0.05 + 0.9 * torch.rand(*shape, 4, generator=generator, dtype=torch.float64)


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def slow_kd(s: list[float], t: list[float], softmax: bool) -> float:
    if softmax:
        p, q = ([math.exp(x) / sum(map(math.exp, z)) for x in z] for z in (s, t))
        return sum(b * math.log(b / a) for a, b in zip(p, q))
    total = 0.0
    for x, y in zip(s, t):
        p, q = 1 / (1 + math.exp(-x)), 1 / (1 + math.exp(-y))
        total += q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))
    return total


def slow_box(s: list[float], t: list[float]) -> float:
    def corners(b: list[float]) -> list[float]:
        return [b[0] - b[2] / 2, b[1] - b[3] / 2, b[0] + b[2] / 2, b[1] + b[3] / 2]

    a, b = corners(s), corners(t)
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    inside = width * height
    union = s[2] * s[3] + t[2] * t[3] - inside
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    giou = inside / union - (hull - union) / hull
    return 5 * sum(abs(x - y) for x, y in zip(s, t)) + 2 * (1 - giou)


def best(t: list[float], softmax: bool) -> float:
    if softmax:
        return max(map(math.exp, t[:-1])) / sum(map(math.exp, t))
    return max(1 / (1 + math.exp(-x)) for x in t)


@pytest.mark.parametrize("softmax", [False, True])
def test_equal_a_slow_form(softmax):
    s, t = logits(0, 2, 7, 4), logits(1, 2, 7, 4)
    s_boxes, t_boxes = boxes(0, 2, 7), boxes(1, 2, 7)
    kd, box = [], []
    for n in range(2):
        weights = [best(x, softmax) for x in t[n].tolist()]
        total = sum(weights)
        assert total > 1
        terms = zip(weights, s[n].tolist(), t[n].tolist())
        kd.append(sum(w * slow_kd(a, b, softmax) for w, a, b in terms) / total)
        terms = zip(weights, s_boxes[n].tolist(), t_boxes[n].tolist())
        box.append(sum(w * slow_box(a, b) for w, a, b in terms) / total)
    assert QueryKDLoss(3.0, softmax)(s, t).item() == pytest.approx(3 * sum(kd) / 2)
    found = QueryBoxLoss(3.0, softmax=softmax)(s_boxes, t_boxes, t)
    assert found.item() == pytest.approx(3 * sum(box) / 2)


def test_by_hand():
    # One class: the teacher says 3/4 and 1/2, the student 1/2 to both. Weights 3/4 and 1/2.
    t = torch.tensor([[[logit(3 / 4)], [0.0]]])
    kl = 3 / 4 * math.log(3 / 2) + 1 / 4 * math.log(1 / 2)
    assert QueryKDLoss()(torch.zeros_like(t), t).item() == pytest.approx(3 / 4 * kl / (5 / 4))
    # The first box is twice as wide about the same centre: L1 1/4, IoU 1/2 with no empty hull.
    t_boxes = torch.tensor([[[0.5, 0.5, 0.25, 0.25], [0.5, 0.5, 0.25, 0.25]]])
    s_boxes = t_boxes.clone()
    s_boxes[0, 0, 2] = 0.5
    cost = 5 / 4 + 2 / 2
    found = QueryBoxLoss()(s_boxes, t_boxes, t).item()
    assert found == pytest.approx(3 / 4 * cost / (5 / 4))
    # Softmax with background last, 1/2: the best score of an object is 3/8.
    t = torch.tensor([[[3.0, 1, 4]]]).log()
    s = torch.tensor([[[1.0, 1, 2]]]).log()
    kl = 3 / 8 * math.log(3 / 2) + 1 / 8 * math.log(1 / 2)
    # One query of weight 3/8 is less than one object, by whose number a sum is divided at least.
    assert QueryKDLoss(softmax=True)(s, t).item() == pytest.approx(3 / 8 * kl)


def test_the_gradient_is_that_of_cross_entropy_with_the_teachers_scores():
    s, t = logits(0, 1, 5, 3).requires_grad_(), logits(1, 1, 5, 3)
    found = torch.autograd.grad(query_kd_loss(s, t).sum(), s)[0]
    torch.testing.assert_close(found, s.detach().sigmoid() - t.sigmoid())
    found = torch.autograd.grad(query_kd_loss(s, t, softmax=True).sum(), s)[0]
    torch.testing.assert_close(found, s.detach().softmax(-1) - t.softmax(-1))


@pytest.mark.parametrize("softmax", [False, True])
def test_equal_predictions_cost_nothing(softmax):
    s, b = logits(0, 2, 7, 4).float() * 10, boxes(0, 2, 7).float()
    assert query_kd_loss(s, s, softmax).abs().max() == 0
    assert query_box_loss(b, b).abs().max() < 1e-6


def test_the_order_of_queries_does_not_matter():
    s, t = logits(0, 2, 7, 4), logits(1, 2, 7, 4)
    order = torch.randperm(7)
    torch.testing.assert_close(QueryKDLoss()(s[:, order], t[:, order]), QueryKDLoss()(s, t))


def test_wrong_input_is_named():
    s = logits(0, 2, 7, 4)
    with pytest.raises(ValueError, match=r"same queries on both sides, got \[2, 7, 4\].*\[2, 6, 4"):
        query_kd_loss(s, s[:, :6])
    with pytest.raises(ValueError, match=r"logits \[2, 6, 4\] and boxes \[2, 7, 4\]"):
        QueryBoxLoss()(s, s, s[:, :6])
    with pytest.raises(ValueError, match="l1=-1"):
        QueryBoxLoss(l1=-1)
