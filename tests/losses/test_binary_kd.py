"""Binary KD on class maps: mmdet's quality focal loss, a slow form, hand-worked numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import kd_det  # noqa: F401  (makes mmdet importable)
from kd_det.losses import BinaryKDLoss, binary_kd_loss
from kd_det.losses.binary_kd import joint_logits


def maps(seed: int, channels: int = 6) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = ((4, 5), (2, 3))
    return [
        3 * torch.randn(2, channels, *size, generator=generator, dtype=torch.float64)
        for size in sizes
    ]


def slow(s: list[Tensor], t: list[Tensor], beta: float) -> float:
    total = 0.0
    for a, b in zip(s, t):
        for x, y in zip(a.flatten().tolist(), b.flatten().tolist()):
            p, q = 1 / (1 + math.exp(-x)), 1 / (1 + math.exp(-y))
            total -= abs(q - p) ** beta * (q * math.log(p) + (1 - q) * math.log(1 - p))
    return total


@pytest.mark.parametrize("beta", [0, 1, 2])
def test_equals_a_slow_form(beta):
    s, t = maps(0), maps(1)
    assert binary_kd_loss(s, t, beta).sum().item() == pytest.approx(slow(s, t, beta))
    # Of the batch: divided by the number of images, or of positives.
    loss = BinaryKDLoss(2.0, beta)
    assert loss(s, t).item() == pytest.approx(2 * slow(s, t, beta) / 2)
    positives = [torch.zeros(3, 4, dtype=torch.int64), torch.zeros(2, 4, dtype=torch.int64)]
    assert loss(s, t, positives).item() == pytest.approx(2 * slow(s, t, beta) / 5)
    assert loss(s, t, [x[:0] for x in positives]).item() == pytest.approx(2 * slow(s, t, beta))


def test_by_hand():
    # p_s = 1/2, p_t = 3/4: |3/4 - 1/2| * log 2
    s, t = [torch.zeros(1, 1, 1, 1)], [torch.full((1, 1, 1, 1), math.log(3.0))]
    assert float(binary_kd_loss(s, t)) == pytest.approx(0.25 * math.log(2))


def test_equals_the_quality_focal_loss_of_mmdet():
    from mmdet.models.losses.gfocal_loss import quality_focal_loss_tensor_target

    s, t = [x.requires_grad_() for x in maps(0)], maps(1)
    expected = sum(
        quality_focal_loss_tensor_target(
            a.permute(0, 2, 3, 1).reshape(-1, 6),
            b.permute(0, 2, 3, 1).reshape(-1, 6).sigmoid(),
            reduction="sum",
        )
        for a, b in zip(s, t)
    )
    found = binary_kd_loss(s, t, beta=2.0).sum()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, s), torch.autograd.grad(expected, s))


@pytest.mark.parametrize("softmax", [None, 3])
def test_equal_maps_cost_nothing_and_stay(softmax):
    s = [x.requires_grad_() for x in maps(0)]
    loss = binary_kd_loss(s, [x.detach() for x in s], softmax=softmax).sum()
    assert loss == 0
    assert all(g.abs().max() == 0 for g in torch.autograd.grad(loss, s))


def test_softmax_heads_by_hand():
    # Two anchors of three channels. The first agrees; in the second, (1/2, 1/4, 1/4) of the
    # teacher and (1/4, 1/4, 1/2) of the student: 1/4 * (1/2 log 2 + 1/4 log 1/2)
    t = torch.tensor([1.0, 1, 1, 2, 1, 1]).log().view(1, 6, 1, 1)
    s = torch.tensor([5.0, 5, 5, 1, 1, 2]).log().view(1, 6, 1, 1)
    expected = 0.25 * (0.5 * math.log(2) + 0.25 * math.log(0.5))
    assert float(binary_kd_loss([s], [t], softmax=3)) == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"softmax=4 needs .* found \[1, 6, 1, 1\]"):
        binary_kd_loss([s], [t], softmax=4)


def test_objectness_multiplies_probabilities():
    logits, objectness = maps(0)[0], maps(2, channels=2)[0]  # two anchors of three classes
    joint = joint_logits(logits, objectness)
    expected = logits.sigmoid() * objectness.sigmoid().repeat_interleave(3, dim=1)
    torch.testing.assert_close(joint.sigmoid(), expected)
    # Where a float would round 1 - p to 0 or 1.
    ends = joint_logits(torch.tensor([-90.0, 90.0]).view(1, 2, 1, 1), torch.zeros(1, 1, 1, 1))
    assert ends.flatten().tolist() == pytest.approx([-90 - math.log(2), 0.0], abs=1e-5)
    certain = joint_logits(*(torch.full((1, 1, 1, 1), 80.0) for _ in range(2)))
    assert certain.item() == pytest.approx(80 - math.log(2))


def test_the_module_takes_objectness_of_both_sides():
    s, t, s_obj, t_obj = maps(0), maps(1), maps(2, 2), maps(3, 2)
    expected = BinaryKDLoss()(list(map(joint_logits, s, s_obj)), list(map(joint_logits, t, t_obj)))
    found = BinaryKDLoss()(s, t, s_objectness=s_obj, t_objectness=t_obj)
    torch.testing.assert_close(found, expected)


def test_wrong_input_is_named():
    s, t = maps(0), maps(1)
    with pytest.raises(ValueError, match=r"BinaryKD level 1: .*\[2, 6, 2, 3\].*\[2, 6, 4, 5\]"):
        binary_kd_loss(s, [t[0], t[0]])
    with pytest.raises(ValueError, match="beta 0 or at least 1"):
        BinaryKDLoss(beta=0.5)
