"""ND loss towards a direction between the class mean and the teacher's own embedding."""

from __future__ import annotations

import math

import pytest
import torch

from kd_det.centers import ClassCenters
from kd_det.losses import BlendedNDLoss, blended_nd_loss, nd_loss

LABELS = torch.tensor([0, 1, 1])


def rows(seed: int) -> torch.Tensor:
    return torch.randn(3, 4, generator=torch.Generator().manual_seed(seed))


def test_without_a_share_of_its_own_it_is_the_nd_loss():
    s, t, centers = rows(0), rows(1), rows(2)
    expected = nd_loss(s, t, centers, LABELS)
    assert torch.equal(blended_nd_loss(s, t, centers, LABELS, own=0.0), expected)


def test_the_teachers_embedding_alone_is_reached_by_equal_embeddings():
    t = rows(1)
    loss = blended_nd_loss(t, t, rows(2), LABELS, own=1.0)
    assert torch.allclose(loss, torch.zeros(3), atol=1e-6)
    # A shorter embedding of the same direction costs what is missing of its norm.
    assert torch.allclose(
        blended_nd_loss(0.25 * t, t, rows(2), LABELS, own=1.0), torch.full((3,), 0.75)
    )


def test_half_way_lies_between_two_directions():
    """Mean along x, the teacher along y: the target is the diagonal."""
    s = torch.tensor([[3.0, 0.0]])
    t, centers = torch.tensor([[0.0, 2.0]]), torch.tensor([[5.0, 0.0]])
    loss = blended_nd_loss(s, t, centers, torch.tensor([0]), own=0.5)
    assert loss.item() == pytest.approx(1 - math.sqrt(0.5))


@pytest.mark.parametrize("own", [-0.1, 1.5])
def test_own_is_a_share(own):
    with pytest.raises(ValueError, match=r"own in \[0, 1\], found"):
        BlendedNDLoss(2, 4, own=own)


def with_centers(**options) -> BlendedNDLoss:
    loss = BlendedNDLoss(2, 4, own=0.0, **options)
    centers = ClassCenters(2, 4)
    centers.update(rows(2), LABELS)
    loss.set_centers(centers)
    return loss


def test_the_teachers_confidence_weights_a_sample():
    loss, s, t = with_centers(), rows(0), rows(1)
    each = nd_loss(s, t, loss.centers, LABELS)
    logits = torch.tensor([[3.0, 0.0], [1.0, 1.0], [0.0, 200.0]])
    sure = torch.tensor([torch.tensor(3.0).sigmoid().item(), 0.5, 1.0])
    assert loss(s, t, LABELS, t_logits=logits) == pytest.approx((each * sure).mean().item())


def test_what_the_class_layer_does_not_see_takes_no_part():
    loss, s, t = with_centers(), rows(0).requires_grad_(), rows(1)
    seen = torch.eye(4)[:2]
    loss(s, t, LABELS, class_weight=seen).backward()
    assert s.grad[:, :2].abs().min() > 0
    assert torch.allclose(s.grad[:, 2:], torch.zeros(3, 2), atol=1e-7)


def test_what_it_does_not_see_is_kept_as_the_teachers():
    """The least loss is at the teacher's embedding with its class part turned to the mean."""
    loss, t = with_centers(keep=True), rows(1)
    seen = torch.eye(4)[:2]
    means = loss.centers[LABELS][:, :2]
    turned = means / means.norm(dim=1, keepdim=True) * t[:, :2].norm(dim=1, keepdim=True)
    best = torch.cat([turned, t[:, 2:]], dim=1)
    assert loss(best, t, LABELS, class_weight=seen).item() == pytest.approx(0, abs=1e-6)
    assert loss(t, t, LABELS, class_weight=seen) > 0.01
