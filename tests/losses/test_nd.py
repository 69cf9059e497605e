"""ND loss: the published numbers, a slow second implementation, and what the formula promises."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from kd_det.centers import ClassCenters
from kd_det.losses import NDLoss, _dtype, nd_loss

CLASSES, DIM = 4, 6


def loss_with(means: Tensor, **options) -> NDLoss:
    """A loss whose centers are exactly these means."""
    centers = ClassCenters(*means.shape)
    centers.update(means, torch.arange(len(means)))
    loss = NDLoss(*means.shape, **options)
    loss.set_centers(centers)
    return loss


@pytest.fixture
def rows() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Student, teacher, centers, labels; the student's norm is the larger in half of the rows."""
    generator = torch.Generator().manual_seed(0)
    s = torch.randn(10, DIM, generator=generator)
    t = torch.randn(10, DIM, generator=generator)
    t = t / t.norm(dim=1, keepdim=True) * s.norm(dim=1, keepdim=True)
    t = t * torch.tensor([0.5, 2.0]).repeat(5).unsqueeze(1)
    centers = torch.randn(CLASSES, DIM, generator=generator)
    return s, t, centers, torch.arange(10) % CLASSES


def value_and_grad(s: Tensor, *others: Tensor) -> tuple[Tensor, Tensor]:
    """Row losses, and the gradient of their sum."""
    s = s.clone().requires_grad_()
    loss = nd_loss(s, *others)
    (grad,) = torch.autograd.grad(loss.sum(), s)
    return loss.detach(), grad


def slow_nd(s: list, t: list, centers: list, labels: list) -> tuple[list, list]:
    """Row losses and their gradients in plain Python, from the paper's formula.

    |s| < |t|:  1 - <s, e> / |t|,  gradient -e / |t|
    |s| >= |t|: 1 - cos(s, e),     gradient -(e - cos * s / |s|) / |s|
    """
    losses, grads = [], []
    for s_row, t_row, label in zip(s, t, labels):
        center_norm = math.sqrt(sum(c * c for c in centers[label]))
        e = [c / center_norm for c in centers[label]]
        s_norm = math.sqrt(sum(x * x for x in s_row))
        t_norm = math.sqrt(sum(x * x for x in t_row))
        product = sum(x * y for x, y in zip(s_row, e))
        if s_norm >= t_norm:
            cosine = product / s_norm
            losses.append(1 - cosine)
            grads.append([-(y - cosine * x / s_norm) / s_norm for x, y in zip(s_row, e)])
        else:
            losses.append(1 - product / t_norm)
            grads.append([-y / t_norm for y in e])
    return losses, grads


# Published numbers


@pytest.mark.parametrize(
    "stem, block",
    [
        ("nd_loss_a", ""),
        ("nd_loss_c", ""),
        ("nd_loss_c", "zero."),
        ("nd_loss_c", "tie."),
        ("nd_loss_c", "align."),
    ],
)
def test_equals_the_published_code(golden, stem, block):
    data = golden(stem)
    s, t, labels, expected, row_loss, grad, exact = (
        data[block + key]
        for key in (
            "student_emb",
            "teacher_emb",
            "labels",
            "loss",
            "row_loss",
            "grad_student",
            "loss_f64",
        )
    )
    centers = data["centers"]
    s.requires_grad_()
    loss = loss_with(centers, loss_weight=float(data["nd_weight"]))(s, t, labels)
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(s.grad, grad, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(
        nd_loss(s.detach(), t, centers, labels), row_loss, rtol=1e-5, atol=1e-6
    )
    in_double = nd_loss(s.detach().double(), t.double(), centers.double(), labels)
    torch.testing.assert_close(in_double.mean(), exact.reshape(()), rtol=1e-12, atol=1e-12)


def test_equals_the_slow_implementation(rows):
    s, t, centers, labels = (x.double() if x.is_floating_point() else x for x in rows)
    losses, grads = slow_nd(s.tolist(), t.tolist(), centers.tolist(), labels.tolist())
    loss, grad = value_and_grad(s, t, centers, labels)
    torch.testing.assert_close(loss.tolist(), losses, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(grad.tolist(), grads, rtol=1e-12, atol=1e-12)


def test_hand_worked_rows():
    centers = torch.tensor([[0.0, 2.0]])  # e = (0, 1)
    s = torch.tensor([[3.0, 4.0], [3.0, 4.0], [0.0, -4.0]])
    t = torch.tensor([[1.0, 0.0], [6.0, 8.0], [1.0, 1.0]])
    expected = torch.tensor(
        [
            1 - 4 / 5,  # |s| = 5 > |t| = 1
            1 - 4 / 10,  # |s| = 5 < |t| = 10
            1 + 4 / 4,  # against the center
        ]
    )
    torch.testing.assert_close(nd_loss(s, t, centers, torch.zeros(3).long()), expected)


# What the formula promises


def test_is_one_minus_cosine_where_the_student_is_longer(rows):
    s, t, centers, labels = rows
    longer = s.norm(dim=1) > t.norm(dim=1)
    assert longer.sum() == 5
    cosine = torch.nn.functional.cosine_similarity(s, centers[labels])
    loss = nd_loss(s, t, centers, labels)
    torch.testing.assert_close(loss[longer], 1 - cosine[longer])
    assert ((loss - (1 - cosine)).abs() > 1e-3)[~longer].all()


def test_growing_a_short_student_lowers_the_loss_linearly(rows):
    _, t, centers, labels = rows
    e = torch.nn.functional.normalize(centers)[labels]
    t_norm = t.norm(dim=1, keepdim=True)
    losses = torch.stack([nd_loss(e * t_norm * k, t, centers, labels) for k in (0.0, 0.25, 0.5, 1)])
    # <k |t| e, e> / |t| = k
    expected = torch.tensor([1.0, 0.75, 0.5, 0.0]).unsqueeze(1).expand_as(losses)
    torch.testing.assert_close(losses, expected, rtol=0, atol=1e-6)
    beyond = nd_loss(e * t_norm * 3, t, centers, labels)
    torch.testing.assert_close(beyond, torch.zeros(10), rtol=0, atol=1e-6)


@pytest.mark.parametrize("factor", [0.25, 3.0, 1e30, 1e-30])
def test_scaling_both_embeddings_changes_nothing(rows, factor):
    s, t, centers, labels = rows
    loss, grad = value_and_grad(s, t, centers, labels)
    scaled_loss, scaled_grad = value_and_grad(s * factor, t * factor, centers, labels)
    torch.testing.assert_close(scaled_loss, loss, rtol=1e-5, atol=1e-6)
    # d loss(k s, k t) / d(k s) = 1/k of d loss(s, t) / d s
    torch.testing.assert_close(scaled_grad.double() * factor, grad.double(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("s_factor, t_factor", [(1e30, 1e-30), (1e-30, 1e30)])
def test_norms_may_be_far_apart(rows, s_factor, t_factor):
    s, t, centers, labels = rows
    loss, grad = value_and_grad(s * s_factor, t * t_factor, centers, labels)
    cosine = torch.nn.functional.cosine_similarity(s, centers[labels])
    expected = 1 - cosine if s_factor > t_factor else torch.ones(10)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    assert grad.isfinite().all()


def test_on_a_tie_the_whole_norm_gradient_flows():
    s = torch.tensor([[3.0, 4.0]])
    centers = torch.tensor([[1.0, 0.0]])
    # cos = 0.6; gradient -(e - cos * s / |s|) / |s| = -((1, 0) - 0.6 * (0.6, 0.8)) / 5.
    # Half the norm gradient, as torch.maximum gives it, would be (-0.164, 0.048).
    loss, grad = value_and_grad(s, -s, centers, torch.tensor([0]))
    torch.testing.assert_close(loss, torch.tensor([0.4]))
    torch.testing.assert_close(grad, torch.tensor([[-0.128, 0.096]]))


@pytest.mark.parametrize(
    "s_factor, t_factor, expected, expected_grad",
    [
        (0.0, 1.0, 1.0, [0.0, -0.1]),  # -e / |t|, |t| = 10
        (1.0, 0.0, 0.2, [0.096, -0.072]),  # -(e - cos * s / |s|) / |s|, cos = 0.8, |s| = 5
    ],
)
def test_one_zero_row_has_the_exact_gradient(s_factor, t_factor, expected, expected_grad):
    s = torch.tensor([[3.0, 4.0]]) * s_factor
    t = torch.tensor([[6.0, 8.0]]) * t_factor
    loss, grad = value_and_grad(s, t, torch.tensor([[0.0, 7.0]]), torch.tensor([0]))
    torch.testing.assert_close(loss, torch.tensor([expected]))
    torch.testing.assert_close(grad, torch.tensor([expected_grad]))


def test_two_zero_rows_cost_one_with_a_bounded_gradient():
    zero = torch.zeros(1, 2)
    loss, grad = value_and_grad(zero, zero, torch.tensor([[0.0, 7.0]]), torch.tensor([0]))
    assert loss == 1
    assert grad.norm() <= 1


def test_gradient_equals_finite_differences(rows):
    s, t, centers, labels = (x.double() if x.is_floating_point() else x for x in rows)
    s.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: nd_loss(x, t, centers, labels), s)
    loss = loss_with(centers).double()
    assert torch.autograd.gradcheck(lambda x: loss(x, t, labels), s)


def test_nothing_is_float64_on_a_device_that_lacks_it(rows, monkeypatch):
    class NoFloat64(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **kwargs or {})
            found = [x for x in tree_flatten(result)[0] if isinstance(x, Tensor)]
            assert all(x.dtype != torch.float64 for x in found), function
            return result

    monkeypatch.setattr(_dtype, "WITHOUT_FLOAT64", ("cpu",))  # as "mps"
    s, t, centers, labels = rows
    with NoFloat64():
        found = value_and_grad(s, t, centers, labels)
    monkeypatch.undo()
    torch.testing.assert_close(found, value_and_grad(s, t, centers, labels))
