"""The per-sample losses against class means: what all share, and what each promises alone."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kd_det.losses import CenterContrastLoss, center_contrast_loss, center_cosine_loss, nd_loss

CLASSES, DIM = 5, 6
Rows = tuple[Tensor, Tensor, Tensor]

# Of student, centers and labels alone. The branch of ND where the student is longer is the cosine.
FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "nd": lambda s, centers, labels: nd_loss(s, s.detach() * 2, centers, labels),
    "cosine": center_cosine_loss,
    "contrast": lambda s, centers, labels: center_contrast_loss(s, centers, labels, tau=0.5),
}


@pytest.fixture(params=FUNCTIONS)
def function(request) -> Callable[..., Tensor]:
    return FUNCTIONS[request.param]


@pytest.fixture
def rows() -> Rows:
    """Student, centers, labels."""
    generator = torch.Generator().manual_seed(0)
    s = torch.randn(10, DIM, generator=generator)
    return s, torch.randn(CLASSES, DIM, generator=generator), torch.arange(10) % CLASSES


def value_and_grad(function: Callable[..., Tensor], s: Tensor, *others, **options):
    """Row losses, and the gradient of their sum."""
    s = s.clone().requires_grad_()
    loss = function(s, *others, **options)
    return loss.detach(), torch.autograd.grad(loss.sum(), s)[0]


# All three


@pytest.mark.parametrize("factor", [0.25, 1e30, 1e-30])
def test_scales_do_not_matter(rows, function, factor):
    s, centers, labels = rows
    loss, grad = value_and_grad(function, s, centers, labels)
    # d loss(k s) / d(k s) = 1/k of d loss(s) / d s
    scaled, scaled_grad = value_and_grad(function, s * factor, centers, labels)
    close = dict(rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scaled, loss, **close)
    torch.testing.assert_close(scaled_grad.double() * factor, grad.double(), **close)
    moved = value_and_grad(function, s, centers * factor, labels)
    torch.testing.assert_close(moved, (loss, grad), **close)


def test_permuting_classes_changes_nothing(rows, function):
    s, centers, labels = rows
    order = torch.tensor([3, 0, 4, 1, 2])
    moved = value_and_grad(function, s, centers[order], torch.argsort(order)[labels])
    torch.testing.assert_close(moved, value_and_grad(function, s, centers, labels))


@pytest.mark.parametrize("name", ["cosine", "contrast"])
def test_gradient_equals_finite_differences(rows, name):
    s, centers, labels = rows
    s, centers = s.double().requires_grad_(), centers.double()
    assert torch.autograd.gradcheck(lambda x: FUNCTIONS[name](x, centers, labels), s)


def test_centers_get_no_gradient(rows, function):
    s, centers, labels = rows
    function(s.requires_grad_(), centers.requires_grad_(), labels).sum().backward()
    assert s.grad.abs().sum() > 0
    assert centers.grad is None


@pytest.mark.parametrize("entry", [0.0, 1.4e-45])
@pytest.mark.parametrize("name", ["nd", "cosine"])
def test_a_zero_center_costs_one_without_gradient(rows, name, entry):
    """So does one whose norm float32 cannot tell with all its digits."""
    s, centers, labels = rows
    loss, grad = value_and_grad(FUNCTIONS[name], s, torch.full_like(centers, entry), labels)
    assert torch.equal(loss, torch.ones(10))
    torch.testing.assert_close(grad, torch.zeros_like(s), rtol=0, atol=1e-40)


@pytest.mark.parametrize(
    "shapes, message",
    [
        (([3, 6], [4, 5], [3]), r"do not fit; got s_emb \[3, 6\].*centers \[4, 5\]"),
        (([3, 6], [4, 6], [2]), r"do not fit; .*labels \[2\]"),
        (([3, 6, 1], [4, 6], [3]), r"needs s_emb \[N, D\].*got s_emb \[3, 6, 1\]"),
        (([3, 6], [6], [3]), r"centers \[6\]"),
        (([3, 6], [4, 6], [3, 1]), r"labels \[3, 1\]"),
    ],
)
def test_shapes_that_do_not_fit_are_an_error(function, shapes, message):
    labels = torch.zeros(shapes[2], dtype=torch.int64)
    with pytest.raises(ValueError, match=f"(ND|center cosine|center contrast) loss.*{message}"):
        function(torch.zeros(shapes[0]), torch.zeros(shapes[1]), labels)


# Cosine


def test_hand_worked_cosines():
    centers = torch.tensor([[0.0, 2.0], [5.0, 0.0]])
    s = torch.tensor([[3.0, 4.0], [3.0, 4.0], [0.0, -4.0], [0.0, 0.1], [0.0, 0.0]])
    loss, grad = value_and_grad(center_cosine_loss, s, centers, torch.tensor([0, 1, 0, 0, 0]))
    torch.testing.assert_close(loss, torch.tensor([1 - 4 / 5, 1 - 3 / 5, 2.0, 0.0, 1.0]))
    # -(e - cos * s / |s|) / |s|; 0 along and against the center. A zero row is drawn to it.
    expected = [[0.096, -0.072], [-0.128, 0.096], [0.0, 0.0], [0.0, 0.0], [0.0, -1.0]]
    torch.testing.assert_close(grad, torch.tensor(expected))


def test_cosine_is_torchs_and_nds_where_the_student_is_longer(rows):
    s, centers, labels = rows
    loss = center_cosine_loss(s, centers, labels)
    torch.testing.assert_close(loss, 1 - F.cosine_similarity(s, centers[labels]))
    torch.testing.assert_close(loss, nd_loss(s, s * 0.5, centers, labels))
    assert ((loss - nd_loss(s, s * 2, centers, labels)).abs() > 1e-3).all()


# Contrast


def test_hand_worked_contrasts():
    centers = torch.tensor([[0.0, 2.0], [5.0, 0.0]])
    s = torch.tensor([[3.0, 4.0], [3.0, 4.0], [0.0, 0.0]])
    loss, grad = value_and_grad(FUNCTIONS["contrast"], s, centers, torch.tensor([0, 1, 1]))
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
    """As the docstring says: along its own mean, at right angles to 80 others."""
    centers, label = torch.eye(81), torch.tensor([3])
    for options, cost in ((dict(), 0.004), (dict(tau=1.0), 3.4)):
        loss = center_contrast_loss(centers[label], centers, label, **options).item()
        assert loss == pytest.approx(cost, rel=0.02, abs=5e-4)


def test_contrast_equals_cross_entropy_of_torchs_cosines(rows):
    s, centers, labels = rows
    cosines = F.cosine_similarity(s[:, None], centers[None], dim=2)
    for tau in (0.3, 1e6, 1e-3):
        expected = F.cross_entropy(cosines / tau, labels, reduction="none")
        loss = center_contrast_loss(s, centers, labels, tau=tau)
        torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)


def test_a_class_never_seen_is_no_alternative(rows):
    s, centers, _ = rows
    seen = torch.tensor([True, False, True, True, False])
    labels = torch.tensor([0, 2, 3, 0, 2, 3, 0, 2, 3, 0])
    renamed = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])
    found = value_and_grad(center_contrast_loss, s, centers, labels, seen=seen)
    expected = value_and_grad(center_contrast_loss, s, centers[seen], renamed)
    torch.testing.assert_close(found, expected)
    other = torch.where(seen.unsqueeze(1), centers, 1e6)
    assert torch.equal(center_contrast_loss(s, other, labels, seen=seen), found[0])
    one = torch.arange(CLASSES) == 2
    loss, grad = value_and_grad(center_contrast_loss, s, centers, torch.full((10,), 2), seen=one)
    assert not loss.any() and not grad.any()


@pytest.mark.parametrize("tau", [0.0, -1.0, math.nan])
def test_temperature_is_positive(rows, tau):
    with pytest.raises(ValueError, match=f"tau > 0, got tau={tau}"):
        center_contrast_loss(*rows, tau=tau)
    with pytest.raises(ValueError, match=f"tau > 0, got tau={tau}"):
        CenterContrastLoss(CLASSES, DIM, tau=tau)
