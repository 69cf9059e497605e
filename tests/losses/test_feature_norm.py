"""L2 and stepwise growth of the norm: hand-worked numbers, what each pulls, zero rows."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from kd_det.losses import FeatureNormLoss, feature_l2_loss, sifn_loss


def rows(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Student and teacher."""
    generator = torch.Generator().manual_seed(0)
    s, t = (torch.randn(8, 5, generator=generator, dtype=dtype) for _ in range(2))
    return s, t


def gradient(loss: Tensor, s: Tensor) -> Tensor:
    return torch.autograd.grad(loss.sum(), s)[0]


# L2


def test_hand_worked_l2():
    s = torch.tensor([[1.0, 2.0], [0.0, 0.0]], requires_grad=True)
    t = torch.tensor([[4.0, -2.0], [1.0, 0.0]])
    loss = feature_l2_loss(s, t)
    torch.testing.assert_close(loss, torch.tensor([(9 + 16) / 2, 1 / 2]))
    # 2 (s - t) / D
    torch.testing.assert_close(gradient(loss, s), torch.tensor([[-3.0, 4.0], [-1.0, 0.0]]))


def test_l2_is_the_mean_squared_error():
    s, t = rows()
    torch.testing.assert_close(FeatureNormLoss()(s, t), torch.nn.functional.mse_loss(s, t))


def test_gradient_of_l2_equals_finite_differences():
    s, t = rows(torch.float64)
    assert torch.autograd.gradcheck(lambda x: feature_l2_loss(x, t), s.requires_grad_())


@pytest.mark.parametrize("shapes", [([3, 6], [3, 5]), ([3, 6], [2, 6]), ([3, 6, 1], [3, 6, 1])])
def test_l2_rejects_shapes_that_do_not_fit(shapes):
    s, t = (torch.zeros(shape) for shape in shapes)
    found = rf"got s_emb \[{str(shapes[0])[1:-1]}\], t_emb \[{str(shapes[1])[1:-1]}\].*connector"
    with pytest.raises(ValueError, match=found):
        feature_l2_loss(s, t)


def test_l2_needs_the_teacher():
    with pytest.raises(ValueError, match=r"mode='l2' needs t_emb \[N, D\], got None"):
        FeatureNormLoss("l2")(torch.zeros(2, 3))


# SIFN


def test_hand_worked_sifn():
    s = torch.tensor([[3.0, 4.0], [0.0, -0.1]], requires_grad=True)
    loss = sifn_loss(s, step=0.5)
    torch.testing.assert_close(loss, torch.tensor([0.25, 0.25]))
    # -2 step s / |s|
    torch.testing.assert_close(gradient(loss, s), torch.tensor([[-0.6, -0.8], [0.0, 1.0]]))


def test_sifn_equals_its_formula_against_a_fixed_target():
    # The derivative of (|s| - r)^2 at r = |s| + step, by finite differences.
    s, _ = rows(torch.float64)
    target = s.norm(dim=1) + 0.7
    s.requires_grad_()

    def fixed(x: Tensor) -> Tensor:
        return (x.norm(dim=1) - target).square()

    assert torch.autograd.gradcheck(fixed, s)
    loss = sifn_loss(s, 0.7)
    torch.testing.assert_close(loss, fixed(s))
    torch.testing.assert_close(gradient(loss, s), gradient(fixed(s), s))


def test_a_step_along_the_gradient_lengthens_each_row_by_its_size():
    s, _ = rows()
    s.requires_grad_()
    moved = s - 0.5 * gradient(sifn_loss(s, step=0.3), s)
    torch.testing.assert_close(moved.norm(dim=1), s.norm(dim=1) + 0.3)
    unit, moved_unit = (torch.nn.functional.normalize(x) for x in (s, moved))
    torch.testing.assert_close(moved_unit, unit)


@pytest.mark.parametrize("factor", [1e-42, 1e-30, 1e30, 1e38])
def test_the_pull_is_the_same_at_any_norm(factor):
    s = torch.tensor([[0.6, 0.8]]) * factor
    s.requires_grad_()
    loss = sifn_loss(s)
    torch.testing.assert_close(loss, torch.ones(1))
    torch.testing.assert_close(gradient(loss, s), torch.tensor([[-1.2, -1.6]]), rtol=1e-3, atol=0)


def test_a_zero_row_has_no_gradient_and_leaves_the_others_theirs():
    s = torch.tensor([[0.0, 0.0], [3.0, 4.0]], requires_grad=True)
    loss = sifn_loss(s)
    assert torch.equal(loss, torch.ones(2))
    torch.testing.assert_close(gradient(loss, s), torch.tensor([[0.0, 0.0], [-1.2, -1.6]]))


def test_sifn_does_not_look_at_the_teacher():
    s, t = rows()
    loss = FeatureNormLoss("sifn", step=2.0)
    assert torch.equal(loss(s), loss(s, t))
    assert torch.equal(loss(s), torch.tensor(4.0))


def test_sifn_rejects_maps():
    with pytest.raises(ValueError, match=r"\[N, D\], got \[2, 3, 1, 1\]"):
        FeatureNormLoss("sifn")(torch.zeros(2, 3, 1, 1))


@pytest.mark.parametrize("step", [0.0, -1.0, math.nan])
def test_step_is_positive(step):
    with pytest.raises(ValueError, match=f"step > 0, got step={step}"):
        FeatureNormLoss("sifn", step=step)
    with pytest.raises(ValueError, match=f"step > 0, got step={step}"):
        sifn_loss(torch.ones(1, 2), step)


def test_unknown_mode_is_an_error():
    with pytest.raises(ValueError, match=r"one of \('l2', 'sifn'\), got 'L2'"):
        FeatureNormLoss("L2")
