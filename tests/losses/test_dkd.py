"""DKD: the published numbers, the published formula in higher precision, and where that breaks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kd_det.losses import DKDLoss, dkd_loss


def value_and_grad(s: Tensor, *others, **options) -> tuple[Tensor, Tensor]:
    """Row losses, and the gradient of their sum."""
    s = s.clone().requires_grad_()
    loss = dkd_loss(s, *others, **options)
    (grad,) = torch.autograd.grad(loss.sum(), s)
    return loss.detach(), grad


def rows(columns: int = 6, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Student, teacher, labels; the last column occurs among the labels."""
    generator = torch.Generator().manual_seed(0)
    s, t = (3 * torch.randn(8, columns, generator=generator, dtype=dtype) for _ in range(2))
    return s, t, torch.arange(8) % columns


# Published numbers


@pytest.mark.parametrize("stem", ["dkd_loss_a", "dkd_loss_b"])
def test_equals_the_published_code(golden, stem):
    data = golden(stem)
    s, t, labels = data["student_logits"], data["teacher_logits"], data["labels"]
    alpha, beta, tau = (float(data[key]) for key in ("alpha", "beta", "T"))
    s.requires_grad_()
    loss = DKDLoss(alpha, beta, tau)(s, t, labels)
    loss.backward()
    torch.testing.assert_close(loss, data["loss"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(s.grad, data["grad_student"], rtol=1e-4, atol=1e-6)
    for key, weights in {"tckd": (1.0, 0.0), "nckd": (0.0, 1.0)}.items():
        part = DKDLoss(*weights, tau)(s, t, labels)
        torch.testing.assert_close(part, data[key], rtol=1e-5, atol=1e-6)
    in_double = DKDLoss(alpha, beta, tau)(s.detach().double(), t.double(), labels)
    torch.testing.assert_close(in_double, data["loss_f64"].reshape(()), rtol=1e-12, atol=1e-12)


def test_hand_worked_row():
    # Probabilities of the student (1/2, 1/4, 1/4), of the teacher (1/8, 3/4, 1/8); class 0.
    s = torch.tensor([[0.5, 0.25, 0.25]]).log()
    t = torch.tensor([[0.125, 0.75, 0.125]]).log()
    target = 1 / 8 * math.log(1 / 4) + 7 / 8 * math.log(7 / 4)
    others = 6 / 7 * math.log(12 / 7) + 1 / 7 * math.log(2 / 7)
    loss, grad = value_and_grad(s, t, torch.tensor([0]), alpha=2.0, beta=3.0)
    torch.testing.assert_close(loss, torch.tensor([2 * target + 3 * others]))
    # d/dz_y = alpha (b_s - b_t) = 2 (1/2 - 1/8); of another class c
    # -alpha (b_s - b_t) q_s(c) + beta (q_s(c) - q_t(c)), q_s = (1/2, 1/2), q_t = (6/7, 1/7)
    expected = torch.tensor([[3 / 4, -3 / 8 + 3 * (1 / 2 - 6 / 7), -3 / 8 + 3 * (1 / 2 - 1 / 7)]])
    torch.testing.assert_close(grad, expected)


# What the formula promises


def test_kd_is_its_parts_with_the_teachers_weight():
    # Section 3.1 of the paper: KD = TCKD + (1 - p_t(y)) NCKD
    s, t, labels = rows(dtype=torch.float64)
    tau = 3.0
    parts = [dkd_loss(s, t, labels, *w, tau) for w in ((1.0, 0.0), (0.0, 1.0))]
    p = (t / tau).softmax(dim=1)
    other = 1 - p[torch.arange(8), labels]
    log_s = (s / tau).log_softmax(dim=1)
    kd = tau**2 * F.kl_div(log_s, p, reduction="none").sum(dim=1)
    torch.testing.assert_close(parts[0] + other * parts[1], kd)


def test_a_constant_added_to_all_logits_changes_nothing():
    s, t, labels = rows(dtype=torch.float64)
    shifted = value_and_grad(s + 50, t - 20, labels)
    torch.testing.assert_close(shifted, value_and_grad(s, t, labels))


def test_logits_and_temperature_scale_together():
    s, t, labels = rows()
    loss = dkd_loss(s, t, labels, tau=2.0)
    torch.testing.assert_close(dkd_loss(s * 3, t * 3, labels, tau=6.0), loss * 9)


def test_permuting_classes_changes_nothing():
    s, t, labels = rows()
    order = torch.tensor([3, 0, 4, 1, 5, 2])
    loss, grad = value_and_grad(s, t, labels)
    moved = value_and_grad(s[:, order], t[:, order], torch.argsort(order)[labels])
    torch.testing.assert_close(moved, (loss, grad[:, order]))


def test_of_two_classes_only_the_target_part_is_left():
    s, t, labels = rows(columns=2)
    others, grad = value_and_grad(s, t, labels, alpha=0.0, beta=1.0)
    assert torch.equal(others, torch.zeros(8))
    assert torch.equal(grad, torch.zeros_like(s))
    # KL of two Bernoulli distributions: cross-entropy less the teacher's own
    margin = (s[:, 0] - s[:, 1]) * (1 - 2 * labels)
    p = ((t[:, 0] - t[:, 1]) * (1 - 2 * labels)).sigmoid()
    entropy = F.binary_cross_entropy(p, p, reduction="none")
    expected = F.binary_cross_entropy_with_logits(margin, p, reduction="none") - entropy
    torch.testing.assert_close(dkd_loss(s, t, labels, beta=0.0), expected)


@pytest.mark.parametrize("columns", [2, 6])
def test_gradient_equals_finite_differences(columns):
    s, t, labels = rows(columns, torch.float64)
    s.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: dkd_loss(x, t, labels, 1.0, 2.0, 1.5), s)


# Where the published code is not finite


def published(s: Tensor, t: Tensor, labels: Tensor) -> Tensor:
    """Target part of a row as published: the logarithm of the softmax."""
    target = F.one_hot(labels, s.shape[1]).bool()
    (p_s, p_t) = (z.softmax(dim=1) for z in (s, t))
    b_s, b_t = (torch.stack([(p * target).sum(1), (p * ~target).sum(1)], dim=1) for p in (p_s, p_t))
    return F.kl_div(b_s.log(), b_t, reduction="none").sum(dim=1)


@pytest.mark.parametrize("gap", [200.0, 1e4, 1e30])
@pytest.mark.parametrize("label", [0, 1])
def test_finite_at_any_gap(gap, label):
    # The student is sure of class 0; the teacher's probabilities are (1, 2, 1) / 4.
    s = torch.tensor([[gap, 0.0, 0.0]])
    t = torch.tensor([[1.0, 2.0, 1.0]]).log()
    labels = torch.tensor([label])
    assert not published(s, t, labels).isfinite().all()
    loss, grad = value_and_grad(s, t, labels, beta=0.0)
    # KL(b_t || b_s) = gap * b_t(what the student rules out) - entropy of b_t. Of class 0 that
    # is any other class: log b_s = (0, log 2 - gap). Of class 1 it is that class.
    b = [0.25, 0.5][label]
    ruled_out, offset = [(1 - b, math.log(2)), (b, 0.0)][label]
    entropy = -b * math.log(b) - (1 - b) * math.log(1 - b)
    expected = ruled_out * (gap - offset) - entropy
    torch.testing.assert_close(loss, torch.tensor([expected]))
    # alpha (b_s - b_t) at the target, its opposite spread over the others by q_s
    expected_grad = [[1 - b, -(1 - b) / 2, -(1 - b) / 2], [b, -b, 0.0]][label]
    torch.testing.assert_close(grad, torch.tensor([expected_grad]))


@pytest.mark.parametrize("gap", [200.0, 1e4, 1e30])
def test_finite_where_others_are_ruled_out(gap):
    # Among the others (columns 1 and 2) the student is sure of one, the teacher of the other.
    s, t = torch.tensor([[0.0, gap, 0.0]]), torch.tensor([[0.0, 0.0, gap]])
    loss, grad = value_and_grad(s, t, torch.tensor([0]), alpha=0.0, beta=1.0)
    torch.testing.assert_close(loss, torch.tensor([gap]))
    torch.testing.assert_close(grad, torch.tensor([[0.0, 1.0, -1.0]]))


@pytest.mark.parametrize("sign", [1, -1])
def test_finite_where_both_are_sure(sign):
    # Beyond a gap of 1000 the published mask, -1000 on the target, no longer hides it.
    s = torch.tensor([[sign * 1e4, 0.0, 0.0]])
    loss, grad = value_and_grad(s, s, torch.tensor([0]))
    assert torch.equal(loss, torch.zeros(1))
    assert torch.equal(grad, torch.zeros_like(s))


# The module: which samples take part


def test_labels_outside_the_columns_take_no_part():
    s, t, _ = rows()
    labels = torch.tensor([0, -1, 5, 6, 255, 2, -100, 5])
    taking_part = torch.tensor([0, 2, 5, 7])
    s.requires_grad_()
    value = DKDLoss(loss_weight=2.0)(s, t, labels)
    (grad,) = torch.autograd.grad(value, s)
    alone = s.detach()[taking_part].requires_grad_()
    expected = 2.0 * dkd_loss(alone, t[taking_part], labels[taking_part]).mean()
    (expected_grad,) = torch.autograd.grad(expected, alone)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(grad[taking_part], expected_grad)
    assert torch.equal(grad[[1, 3, 4, 6]], torch.zeros(4, 6))


@pytest.mark.parametrize("samples", [0, 3])
def test_no_sample_taking_part_gives_a_connected_zero(samples):
    s = torch.randn(samples, 4, requires_grad=True)
    value = DKDLoss()(s, torch.randn(samples, 4), torch.full((samples,), 4))
    value.backward()
    assert value == 0
    assert torch.equal(s.grad, torch.zeros_like(s))


# Errors


@pytest.mark.parametrize(
    "shapes, message",
    [
        (([3, 6], [3, 5], [3]), r"equal shape; got s_logits \[3, 6\], t_logits \[3, 5\]"),
        (([3, 6, 1], [3, 6, 1], [3]), r"needs s_logits and t_logits \[N, C\]"),
        (([3, 6], [3, 6], [2]), r"one label for each row .*labels \[2\]"),
        (([3, 6], [3, 6], [3, 1]), r"labels \[3, 1\]"),
        (([3, 1], [3, 1], [3]), r"at least two classes; got s_logits \[3, 1\]"),
    ],
)
@pytest.mark.parametrize("call", [dkd_loss, DKDLoss()], ids=["function", "module"])
def test_shapes_that_do_not_fit_are_an_error(call, shapes, message):
    s, t = torch.zeros(shapes[0]), torch.zeros(shapes[1])
    with pytest.raises(ValueError, match=message):
        call(s, t, torch.zeros(shapes[2], dtype=torch.int64))


@pytest.mark.parametrize(
    "option, value", [("tau", 0.0), ("tau", -1.0), ("alpha", -0.5), ("beta", -2.0)]
)
def test_options_out_of_range_are_an_error(option, value):
    with pytest.raises(ValueError, match=f"DKD needs .*{option}={value}"):
        DKDLoss(**{option: value})
    with pytest.raises(ValueError, match=f"DKD needs .*{option}={value}"):
        dkd_loss(*rows(), **{option: value})
