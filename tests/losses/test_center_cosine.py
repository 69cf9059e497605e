"""Cosine distance to the class mean: hand-worked rows, invariances, its relation to ND loss."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kd_det.losses import center_cosine_loss, nd_loss

CLASSES, DIM = 4, 6


@pytest.fixture
def rows() -> tuple[Tensor, Tensor, Tensor]:
    """Student, centers, labels."""
    generator = torch.Generator().manual_seed(0)
    s = torch.randn(10, DIM, generator=generator)
    return s, torch.randn(CLASSES, DIM, generator=generator), torch.arange(10) % CLASSES


def value_and_grad(s: Tensor, *others: Tensor) -> tuple[Tensor, Tensor]:
    """Row losses, and the gradient of their sum."""
    s = s.clone().requires_grad_()
    loss = center_cosine_loss(s, *others)
    (grad,) = torch.autograd.grad(loss.sum(), s)
    return loss.detach(), grad


def test_hand_worked_rows():
    centers = torch.tensor([[0.0, 2.0], [5.0, 0.0]])
    s = torch.tensor([[3.0, 4.0], [3.0, 4.0], [0.0, -4.0], [0.0, 0.1]])
    loss, grad = value_and_grad(s, centers, torch.tensor([0, 1, 0, 0]))
    torch.testing.assert_close(loss, torch.tensor([1 - 4 / 5, 1 - 3 / 5, 2.0, 0.0]))
    # -(e - cos * s / |s|) / |s|; 0 along and against the center
    expected = torch.tensor([[0.096, -0.072], [-0.128, 0.096], [0.0, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(grad, expected)


def test_equals_torchs_cosine(rows):
    s, centers, labels = rows
    cosine = torch.nn.functional.cosine_similarity(s, centers[labels])
    torch.testing.assert_close(center_cosine_loss(s, centers, labels), 1 - cosine)


def test_equals_nd_loss_where_the_student_is_longer(rows):
    s, centers, labels = rows
    loss = center_cosine_loss(s, centers, labels)
    torch.testing.assert_close(loss, nd_loss(s, s * 0.5, centers, labels))
    assert ((loss - nd_loss(s, s * 2, centers, labels)).abs() > 1e-3).all()


@pytest.mark.parametrize("factor", [0.25, 1e30, 1e-30])
def test_norms_do_not_matter(rows, factor):
    s, centers, labels = rows
    loss, grad = value_and_grad(s, centers, labels)
    # d loss(k s) / d(k s) = 1/k of d loss(s) / d s
    scaled, scaled_grad = value_and_grad(s * factor, centers, labels)
    torch.testing.assert_close(scaled, loss, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(scaled_grad.double() * factor, grad.double(), rtol=1e-5, atol=1e-6)
    moved = value_and_grad(s, centers * factor, labels)
    torch.testing.assert_close(moved, (loss, grad), rtol=1e-5, atol=1e-6)


def test_the_student_is_turned_and_never_lengthened(rows):
    s, centers, labels = rows
    _, grad = value_and_grad(s, centers, labels)
    torch.testing.assert_close((s * grad).sum(dim=1), torch.zeros(10), rtol=0, atol=1e-6)
    assert (grad.norm(dim=1) > 0.01).all()


def test_a_zero_row_costs_one_and_is_drawn_to_its_center():
    loss, grad = value_and_grad(
        torch.zeros(1, 2), torch.tensor([[0.0, 7.0]]), torch.zeros(1, dtype=torch.int64)
    )
    assert loss == 1
    assert torch.equal(grad, torch.tensor([[0.0, -1.0]]))


def test_a_zero_center_costs_one_without_gradient(rows):
    s, centers, labels = rows
    loss, grad = value_and_grad(s, torch.zeros_like(centers), labels)
    assert torch.equal(loss, torch.ones(10))
    assert torch.equal(grad, torch.zeros_like(s))


def test_permuting_rows_permutes_the_result(rows):
    s, centers, labels = rows
    order = torch.randperm(10, generator=torch.Generator().manual_seed(1))
    loss, grad = value_and_grad(s, centers, labels)
    moved_loss, moved_grad = value_and_grad(s[order], centers, labels[order])
    assert torch.equal(moved_loss, loss[order])
    assert torch.equal(moved_grad, grad[order])


def test_gradient_equals_finite_differences(rows):
    s, centers, labels = (x.double() if x.is_floating_point() else x for x in rows)
    s.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: center_cosine_loss(x, centers, labels), s)


def test_centers_get_no_gradient(rows):
    s, centers, labels = rows
    centers.requires_grad_()
    center_cosine_loss(s.requires_grad_(), centers, labels).sum().backward()
    assert s.grad.abs().sum() > 0
    assert centers.grad is None


@pytest.mark.parametrize(
    "shapes, message",
    [
        (([3, 6], [4, 5], [3]), r"do not fit; got s_emb \[3, 6\], centers \[4, 5\]"),
        (([3, 6], [4, 6], [2]), r"do not fit; .*labels \[2\]"),
        (([3, 6, 1], [4, 6], [3]), r"needs s_emb \[N, D\].*got s_emb \[3, 6, 1\]"),
        (([3, 6], [6], [3]), r"centers \[6\]"),
    ],
)
def test_shapes_that_do_not_fit_are_an_error(shapes, message):
    labels = torch.zeros(shapes[2], dtype=torch.int64)
    with pytest.raises(ValueError, match=f"center cosine loss.*{message}"):
        center_cosine_loss(torch.zeros(shapes[0]), torch.zeros(shapes[1]), labels)
