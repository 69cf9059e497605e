"""InfoNCE over class means: hand-worked rows, limits of the temperature, classes never seen."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kd_det.losses import CenterContrastLoss, center_contrast_loss, center_cosine_loss

CLASSES, DIM = 5, 6


@pytest.fixture
def rows() -> tuple[Tensor, Tensor, Tensor]:
    """Student, centers, labels."""
    generator = torch.Generator().manual_seed(0)
    s = torch.randn(10, DIM, generator=generator)
    return s, torch.randn(CLASSES, DIM, generator=generator), torch.arange(10) % CLASSES


def value_and_grad(s: Tensor, *others, **options) -> tuple[Tensor, Tensor]:
    """Row losses, and the gradient of their sum."""
    s = s.clone().requires_grad_()
    loss = center_contrast_loss(s, *others, **options)
    (grad,) = torch.autograd.grad(loss.sum(), s)
    return loss.detach(), grad


def test_hand_worked_rows():
    centers = torch.tensor([[0.0, 2.0], [5.0, 0.0]])
    s = torch.tensor([[3.0, 4.0], [3.0, 4.0], [0.0, 0.0]])
    loss, grad = value_and_grad(s, centers, torch.tensor([0, 1, 1]), tau=0.5)
    # Cosines 0.8 and 0.6 are 0.4 apart at temperature 0.5; p the probability of the first class.
    p = 1 / (1 + math.exp(-0.4))
    expected = torch.tensor([-math.log(p), -math.log(1 - p), math.log(2)])
    torch.testing.assert_close(loss, expected)
    # d cos_0 / d s = (-0.096, 0.072), d cos_1 / d s = (0.128, -0.096), so of their difference
    # (-0.224, 0.168). A zero row is drawn with the gradient of a row of norm 1.
    towards_first = torch.tensor([-0.224, 0.168]) / 0.5
    zero_row = torch.tensor([-0.5, 0.5]) / 0.5
    expected = torch.stack([-(1 - p) * towards_first, p * towards_first, zero_row])
    torch.testing.assert_close(grad, expected)


def test_the_default_temperature_tells_80_others_apart():
    # As the docstring says: along its own mean, at right angles to 80 others.
    centers, label = torch.eye(81), torch.tensor([3])
    assert center_contrast_loss(centers[label], centers, label).item() == pytest.approx(
        0.004, abs=5e-4
    )
    assert center_contrast_loss(centers[label], centers, label, tau=1.0).item() == pytest.approx(
        3.4, abs=0.05
    )


def test_equals_cross_entropy_of_torchs_cosines(rows):
    s, centers, labels = rows
    cosines = F.cosine_similarity(s[:, None], centers[None], dim=2)
    expected = F.cross_entropy(cosines / 0.3, labels, reduction="none")
    torch.testing.assert_close(center_contrast_loss(s, centers, labels, tau=0.3), expected)


def test_at_a_high_temperature_all_classes_are_alike(rows):
    loss = center_contrast_loss(*rows, tau=1e6)
    torch.testing.assert_close(loss, torch.full((10,), math.log(CLASSES)))


def test_at_a_low_temperature_only_the_nearest_mean_counts(rows):
    s, centers, labels = rows
    cosines = F.cosine_similarity(s[:, None], centers[None], dim=2)
    behind = cosines.max(dim=1).values - cosines[torch.arange(10), labels]
    loss = center_contrast_loss(*rows, tau=1e-6)
    torch.testing.assert_close(loss * 1e-6, behind, rtol=0, atol=1e-6)


def test_with_two_opposite_means_it_is_a_function_of_the_cosine(rows):
    # cos' = -cos: log(1 + exp(-2 cos / tau))
    s, centers, _ = rows
    pair = torch.stack([centers[0], -centers[0]])
    first = torch.zeros(10, dtype=torch.int64)
    cosine = 1 - center_cosine_loss(s, pair, first)
    loss = center_contrast_loss(s, pair, first, tau=0.5)
    torch.testing.assert_close(loss, F.softplus(-2 * cosine / 0.5))


@pytest.mark.parametrize("factor", [0.25, 1e30, 1e-30])
def test_norms_do_not_matter(rows, factor):
    s, centers, labels = rows
    loss, grad = value_and_grad(s, centers, labels)
    scaled, scaled_grad = value_and_grad(s * factor, centers, labels)
    torch.testing.assert_close(scaled, loss, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(scaled_grad.double() * factor, grad.double(), rtol=1e-4, atol=1e-5)
    moved = value_and_grad(s, centers * factor, labels)
    torch.testing.assert_close(moved, (loss, grad), rtol=1e-4, atol=1e-5)


def test_permuting_classes_changes_nothing(rows):
    s, centers, labels = rows
    order = torch.tensor([3, 0, 4, 1, 2])
    renamed = torch.argsort(order)[labels]
    torch.testing.assert_close(
        value_and_grad(s, centers[order], renamed), value_and_grad(s, centers, labels)
    )


def test_a_class_never_seen_is_no_alternative(rows):
    s, centers, _ = rows
    seen = torch.tensor([True, False, True, True, False])
    labels = torch.tensor([0, 2, 3, 0, 2, 3, 0, 2, 3, 0])
    renamed = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])
    found = value_and_grad(s, centers, labels, seen=seen)
    torch.testing.assert_close(found, value_and_grad(s, centers[seen], renamed))
    other = torch.where(seen.unsqueeze(1), centers, 1e6)
    assert torch.equal(center_contrast_loss(s, other, labels, seen=seen), found[0])


def test_one_seen_class_alone_costs_nothing(rows):
    s, centers, _ = rows
    seen = torch.arange(CLASSES) == 2
    loss, grad = value_and_grad(s, centers, torch.full((10,), 2), seen=seen)
    assert torch.equal(loss, torch.zeros(10))
    assert torch.equal(grad, torch.zeros_like(s))


def test_gradient_equals_finite_differences(rows):
    s, centers, labels = (x.double() if x.is_floating_point() else x for x in rows)
    seen = torch.tensor([True, True, True, True, True])
    s.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: center_contrast_loss(x, centers, labels, tau=0.5, seen=seen), s
    )


def test_centers_get_no_gradient(rows):
    s, centers, labels = rows
    centers.requires_grad_()
    center_contrast_loss(s.requires_grad_(), centers, labels).sum().backward()
    assert s.grad.abs().sum() > 0
    assert centers.grad is None


@pytest.mark.parametrize("tau", [0.0, -1.0, math.nan])
def test_temperature_is_positive(rows, tau):
    with pytest.raises(ValueError, match=f"tau > 0, got tau={tau}"):
        center_contrast_loss(*rows, tau=tau)
    with pytest.raises(ValueError, match=f"tau > 0, got tau={tau}"):
        CenterContrastLoss(CLASSES, DIM, tau=tau)


def test_shapes_that_do_not_fit_are_an_error():
    with pytest.raises(ValueError, match=r"center contrast loss: .*centers \[4, 5\]"):
        center_contrast_loss(torch.zeros(3, 6), torch.zeros(4, 5), torch.zeros(3).long())
