"""LD: mmdet's numbers, hand-worked ones, and the valuable region against a slow form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import kd_det  # noqa: F401  (makes mmdet importable)
from kd_det.losses import LDLoss, ld_loss, valuable_region
from kd_det.losses.ld import diou, iou
from kd_det.losses.positives import rows_at

BINS = 5


def maps(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        3 * torch.randn(2, 4 * BINS, *size, generator=generator, dtype=torch.float64)
        for size in ((4, 5), (2, 3))
    ]


POSITIVES = [
    torch.tensor([[0, 1, 2, 7], [1, 3, 4, 0], [1, 3, 3, 0]]),
    torch.tensor([[0, 0, 0, 1]]),
]
REGION = [torch.tensor([[0, 0, 0, 7], [1, 1, 4, 0]]), torch.zeros(0, 4, dtype=torch.int64)]


@pytest.mark.parametrize("tau", [1.0, 10.0])
def test_equals_mmdet_but_for_the_mean_over_distances(tau):
    from mmdet.models.losses import KnowledgeDistillationKLDivLoss

    s, t = (rows_at(maps(seed), POSITIVES) for seed in (0, 1))
    s.requires_grad_()
    theirs = KnowledgeDistillationKLDivLoss(reduction="none", T=tau)(
        s.reshape(-1, BINS), t.reshape(-1, BINS)
    )
    expected = BINS * theirs.reshape(-1, 4).mean(dim=1)
    found = ld_loss(s, t, tau)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found.sum(), s), torch.autograd.grad(expected.sum(), s)
    )


def test_by_hand():
    # One edge of four differs: (3/4, 1/4) of the teacher and (1/2, 1/2) of the student.
    t = torch.tensor([[math.log(3.0), 0, 0, 0, 0, 0, 0, 0]])
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert ld_loss(torch.zeros(1, 8), t, tau=1).tolist() == pytest.approx([expected / 4])


def test_the_module_takes_means_over_positives_and_region():
    s, t = maps(0), maps(1)

    def mean(places: list[Tensor]) -> float:
        values = []
        for level, at in enumerate(places):
            for n, y, x, _ in at.tolist():
                for edge in range(4):
                    cut = slice(edge * BINS, (edge + 1) * BINS)
                    p, q = ((side[level][n, cut, y, x] / 2).softmax(0) for side in (t, s))
                    values.append(4 * float((p * (p / q).log()).sum()))
        return sum(values) / len(values)

    loss = LDLoss(3.0, tau=2.0, region_weight=0.5)
    found = loss(s, t, POSITIVES)
    assert found.item() == pytest.approx(3 * mean(POSITIVES))
    found = loss(s, t, POSITIVES, REGION)
    assert found.item() == pytest.approx(3 * (mean(POSITIVES) + 0.5 * mean(REGION)))


def test_without_positives_the_teachers_scores_weigh():
    s, t = maps(0), maps(1)
    logits = [x[:, :3] for x in maps(2)]
    means = []
    for n in range(2):
        losses, weights = [], []
        for a, b, c in zip(s, t, logits):
            rows = [x[n].flatten(1).T for x in (a, b)]
            losses.append(ld_loss(*rows, tau=2.0))
            weights.append(c[n].sigmoid().amax(0).flatten())
        weight = torch.cat(weights)
        means.append((torch.cat(losses) * weight).sum() / weight.sum())
    found = LDLoss(tau=2.0)(s, t, t_logits=logits)
    torch.testing.assert_close(found, torch.stack(means).mean())
    with pytest.raises(ValueError, match="positives or t_logits"):
        LDLoss()(s, t)


def test_equal_maps_cost_nothing():
    s = [x.requires_grad_() for x in maps(0)]
    loss = LDLoss()(s, [x.detach() for x in s], POSITIVES, REGION)
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert all(g.abs().max() < 1e-12 for g in torch.autograd.grad(loss, s))


# Priors of 16 and 32 pixels on grids of 8 and 16 pixels, and objects on an image of 64.
def priors() -> list[Tensor]:
    levels = []
    for stride, side in ((8, 16), (16, 32)):
        center = torch.arange(64 // stride) * stride
        y, x = torch.meshgrid(center, center, indexing="ij")
        center = torch.stack([x, y], dim=-1).reshape(-1, 2).double()
        levels.append(torch.cat([center - side / 2, center + side / 2], dim=1))
    return levels


OBJECTS = torch.tensor([[3.0, 5, 41, 44], [30, 8, 60, 30]], dtype=torch.float64)


def test_overlaps_equal_torchvision():
    from torchvision.ops import box_iou, distance_box_iou

    for level in priors():
        torch.testing.assert_close(iou(level, OBJECTS), box_iou(level, OBJECTS))
        torch.testing.assert_close(diou(level, OBJECTS), distance_box_iou(level, OBJECTS))


@pytest.mark.parametrize("gamma", [0.1, 0.25])
def test_the_region_equals_a_slow_form(gamma):
    from torchvision.ops import box_iou

    levels = priors()
    found = valuable_region(levels, OBJECTS, gamma, candidates=9)
    assert [x.shape for x in found] == [(64, 2), (16, 2)]
    for index, (x1, y1, x2, y2) in enumerate(OBJECTS.tolist()):
        candidates = []
        for level in levels:
            distances = []
            for place, (a1, b1, a2, b2) in enumerate(level.tolist()):
                distance = math.hypot((a1 + a2 - x1 - x2) / 2, (b1 + b2 - y1 - y2) / 2)
                distances.append((distance, place))
            overlaps = box_iou(level, OBJECTS)[:, index]
            candidates += [float(overlaps[place]) for _, place in sorted(distances)[:9]]
        mean = sum(candidates) / len(candidates)
        variance = sum((x - mean) ** 2 for x in candidates) / (len(candidates) - 1)
        threshold = mean + math.sqrt(variance)
        overlaps = torch.cat([diou(level, OBJECTS)[:, index] for level in levels]).tolist()
        expected = [gamma * threshold <= x <= threshold for x in overlaps]
        assert torch.cat(found)[:, index].tolist() == expected
        assert 0 < sum(expected) < len(expected)


def test_the_region_by_hand():
    # IoU of the two closest priors with the object: 1 and 1/2, so the threshold is 3/4 + sqrt(1/8),
    # 1.104. DIoU: 1, and 1/2 - 1/32, whose centers are 1 apart in a hull of 4 x 4; the third is
    # far away. With gamma 1/4 the region begins at 0.276, with 1/2 at 0.552.
    priors = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 2], [8, 8, 12, 12]])
    boxes = torch.tensor([[0.0, 0, 4, 4]])
    assert diou(priors, boxes).flatten().tolist() == pytest.approx([1, 15 / 32, -128 / 288])
    for gamma, expected in ((0.25, [True, True, False]), (0.5, [True, False, False])):
        (found,) = valuable_region([priors], boxes, gamma, candidates=2)
        assert found.flatten().tolist() == expected


def test_positions_that_do_not_fit_are_named():
    feats = [torch.zeros(2, 3, 4, 5)]
    with pytest.raises(
        ValueError, match=r"level 0: .*\[2, 3, 4, 5\] and positions up to \[1, 4, 0"
    ):
        rows_at(feats, [torch.tensor([[0, 1, 0, 0], [1, 4, 0, 0]])])
    with pytest.raises(ValueError, match=r"for each of 1 levels, found \[\[2, 3\]\]"):
        rows_at(feats, [torch.zeros(2, 3, dtype=torch.int64)])
