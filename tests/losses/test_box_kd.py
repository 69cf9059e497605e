"""KD of boxes: torchvision's overlaps, hand-worked numbers, and what must not matter."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import kd_det  # noqa: F401
from kd_det.losses import BoxKDLoss, box_kd_loss, overlap_loss
from kd_det.losses.box_kd import best_score


def boxes(seed: int, *shape: int) -> Tensor:
    """Corners of boxes on 100 pixels, ``[*shape, 4]``."""
    generator = torch.Generator().manual_seed(seed)
    start = 60 * torch.rand(*shape, 2, generator=generator, dtype=torch.float64)
    size = 5 + 35 * torch.rand(*shape, 2, generator=generator, dtype=torch.float64)
    return torch.cat([start, start + size], dim=-1)


def as_map(corners: Tensor) -> Tensor:
    """``[N, H, W, A, 4] -> [N, A * 4, H, W]``."""
    return corners.flatten(3).permute(0, 3, 1, 2)


@pytest.mark.parametrize("giou", [False, True])
def test_equals_torchvision(giou):
    from torchvision.ops import box_iou, generalized_box_iou

    s, t = boxes(0, 30).requires_grad_(), boxes(1, 30)
    expected = 1 - (generalized_box_iou if giou else box_iou)(s, t).diagonal()
    found = overlap_loss(s, t, giou)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found.sum(), s), torch.autograd.grad(expected.sum(), s)
    )


def test_by_hand():
    # 2 x 2 and 2 x 2, shifted by 1: 2 / 6; the hull is 3 x 2.
    s, t = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]])
    assert overlap_loss(s, t).tolist() == pytest.approx([1 - 2 / 6])
    # Apart: 1 x 1 each in a hull of 3 x 1.
    s, t = torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[2.0, 0, 3, 1]])
    assert overlap_loss(s, t).tolist() == [1]
    assert overlap_loss(s, t, giou=True).tolist() == pytest.approx([1 + 1 / 3])


@pytest.mark.parametrize("giou", [False, True])
def test_equal_boxes_cost_nothing(giou):
    s = boxes(0, 20)
    s[0, 2:] = s[0, :2]  # without an area
    assert overlap_loss(s, s, giou).abs().max() < 1e-12
    assert overlap_loss(s.float(), s.float(), giou).abs().max() < 1e-6


@pytest.mark.parametrize("weight", ["difference", "teacher"])
def test_maps_equal_a_slow_form(weight):
    sizes, anchors, classes = ((3, 4), (2, 2)), 2, 3
    s, t = ([boxes(seed + h, 2, h, w, anchors) for h, w in sizes] for seed in (0, 10))
    generator = torch.Generator().manual_seed(0)
    logits = [
        [
            torch.randn(2, anchors * classes, h, w, generator=generator, dtype=torch.float64)
            for h, w in sizes
        ]
        for _ in range(2)
    ]
    total, weights = [0.0, 0.0], [0.0, 0.0]
    for level, (h, w) in enumerate(sizes):
        for n, y, x, a in torch.cartesian_prod(*map(torch.arange, (2, h, w, anchors))).tolist():
            ps, pt = (
                side[level][n, a * classes : (a + 1) * classes, y, x].sigmoid() for side in logits
            )
            factor = float((pt - ps).abs().max() if weight == "difference" else pt.max())
            total[n] += factor * float(overlap_loss(s[level][n, y, x, a], t[level][n, y, x, a]))
            weights[n] += factor
    s_maps, t_maps = ([as_map(x) for x in side] for side in (s, t))
    positives = [torch.zeros(3, 4, dtype=torch.int64), torch.zeros(4, 4, dtype=torch.int64)]
    found = BoxKDLoss(3.0, weight)(s_maps, t_maps, logits[1], logits[0], positives)
    means = [a / b for a, b in zip(total, weights)]
    expected = sum(total) / 7 if weight == "difference" else sum(means) / 2
    assert found.item() == pytest.approx(3 * expected)


def test_scores_of_softmax_heads_leave_background_out():
    # One box of 2 x 2 each, shifted by 1: 1 - IoU is 2/3. Teacher (3/8, 1/8, 1/2), the last
    # background, student (1/8, 1/8, 3/4).
    s = torch.tensor([0.0, 0, 2, 2]).view(1, 4, 1, 1)
    logits = [torch.tensor(p).log().view(1, 3, 1, 1) for p in ([1.0, 1, 6], [3.0, 1, 4])]
    inputs = [s], [s + torch.tensor([1.0, 0, 1, 0]).view(1, 4, 1, 1)], [logits[1]], [logits[0]]
    assert BoxKDLoss(softmax=True)(*inputs).item() == pytest.approx(2 / 8 * 2 / 3)
    assert best_score(logits[1], 1, softmax=True).item() == pytest.approx(3 / 8)


def test_moving_and_scaling_both_changes_nothing():
    s, t = boxes(0, 30), boxes(1, 30)
    expected = overlap_loss(s, t, giou=True)
    torch.testing.assert_close(overlap_loss(s + 500, t + 500, giou=True), expected)
    torch.testing.assert_close(overlap_loss(s * 7, t * 7, giou=True), expected)


def test_wrong_input_is_named():
    s = [as_map(boxes(0, 2, 3, 4, 2))]
    logits = [torch.zeros(2, 6, 3, 4)]
    with pytest.raises(
        ValueError, match=r"of the same grids, got boxes .*class maps \[\[2, 6, 3, 5"
    ):
        BoxKDLoss()(s, s, [torch.zeros(2, 6, 3, 5)], logits)
    with pytest.raises(ValueError, match="needs s_logits"):
        BoxKDLoss()(s, s, logits)
    with pytest.raises(ValueError, match=r"weight one of .*'teacher'.* got .*'all'"):
        BoxKDLoss(weight="all")
    with pytest.raises(ValueError, match="BoxKD level 0"):
        box_kd_loss(s, [s[0][:, :4]], [torch.ones(2, 2, 3, 4)])
