"""CWD: MMRazor's numbers, hand-worked ones, and what must not matter."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import kd_det  # noqa: F401  (makes mmrazor importable)
from kd_det.losses import CWDLoss, cwd_loss


def pyramid(seed: int, sizes: tuple = ((6, 8), (3, 4))) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 3, *size, generator=generator, dtype=torch.float64) for size in sizes]


@pytest.mark.parametrize("tau", [0.5, 1.0, 4.0])
def test_equals_mmrazors_levels(tau):
    from mmrazor.models.losses import ChannelWiseDivergence

    theirs = ChannelWiseDivergence(tau=tau, loss_weight=3.0)
    s, t = pyramid(0), pyramid(1)
    s = [x.requires_grad_() for x in s]
    loss = CWDLoss(loss_weight=3.0, tau=tau)(s, t)
    expected = sum(theirs(a, b) for a, b in zip(s, t))
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss, s), torch.autograd.grad(expected, s))


def test_by_hand():
    # Two positions: the teacher's softmax is (3/4, 1/4), the student's (1/2, 1/2).
    t = torch.tensor([math.log(3.0), 0.0]).view(1, 1, 1, 2)
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert float(cwd_loss([torch.zeros(1, 1, 1, 2)], [t])) == pytest.approx(expected)


@pytest.mark.parametrize("relative", [False, True])
def test_equal_maps_cost_nothing(relative):
    s = [x.requires_grad_() for x in pyramid(0)]
    loss = cwd_loss(s, [x.detach() for x in s], relative=relative)
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert all(g.abs().max() < 1e-12 for g in torch.autograd.grad(loss, s))


@pytest.mark.parametrize("relative", [False, True])
def test_shifting_channels_changes_nothing(relative):
    s, t = pyramid(0), pyramid(1)
    moved = [x + torch.tensor([5.0, -3.0, 40.0]).view(1, 3, 1, 1) for x in s]
    expected = cwd_loss(s, t, relative=relative)
    torch.testing.assert_close(cwd_loss(moved, t, relative=relative), expected)
    torch.testing.assert_close(cwd_loss(s, [x - 7 for x in t], relative=relative), expected)


@pytest.mark.parametrize("factor", [1e-3, 30.0])
def test_a_relative_temperature_follows_the_scale(factor):
    s, t = pyramid(0), pyramid(1)
    s_scaled, t_scaled = [x * factor for x in s], [x * factor for x in t]
    torch.testing.assert_close(
        cwd_loss(s_scaled, t_scaled, 0.5, relative=True), cwd_loss(s, t, 0.5, relative=True)
    )
    assert abs(cwd_loss(s_scaled, t_scaled, 0.5) / cwd_loss(s, t, 0.5) - 1) > 0.5


def test_relative_is_the_published_form_in_units_of_the_pyramids_deviation():
    """Each sample's own, over all levels: a level that is flatter than the others stays so."""
    s, t = pyramid(0), pyramid(1)
    t[1] /= 5
    centered = [level - level.mean(dim=(2, 3), keepdim=True) for level in t]
    expected = []
    for i in range(2):
        deviation = torch.cat([level[i].flatten() for level in centered]).square().mean().sqrt()
        one_s, one_t = ([level[i : i + 1] / deviation for level in side] for side in (s, t))
        expected.append(cwd_loss(one_s, one_t, 0.5) / 0.5**2)
    torch.testing.assert_close(cwd_loss(s, t, 0.5, relative=True), torch.stack(expected).mean())


def test_objects_weigh_more_than_background():
    """The same error costs more where the teacher responds."""
    t = torch.zeros(1, 1, 8, 8)
    t[..., 2, 2] = 6.0
    missed, noise = t.clone(), t.clone()
    missed[..., 2, 2] = 0.0
    noise[..., 6, 6] = -6.0
    assert cwd_loss([missed], [t]) > 20 * cwd_loss([noise], [t])


@pytest.mark.parametrize("relative", [False, True])
def test_gradient_equals_finite_differences(relative):
    t = pyramid(1, ((3, 2), (2, 2)))
    s = [x.requires_grad_() for x in pyramid(0, ((3, 2), (2, 2)))]
    assert torch.autograd.gradcheck(lambda *levels: cwd_loss(levels, t, 0.7, relative), s)


def test_maps_of_one_position_carry_nothing():
    assert float(cwd_loss([torch.ones(1, 2, 1, 1)], [torch.zeros(1, 2, 1, 1)], relative=True)) == 0


@pytest.mark.parametrize("height", [0.0, 0.1, 3.3, 1e20])
def test_a_flat_teacher_has_no_scale(height):
    """Rounding, all that is left of it without its mean, must not pass for one."""
    t = [torch.full((1, 2, 13, 21), height), torch.full((1, 2, 7, 11), height)]
    torch.manual_seed(0)
    s = [torch.randn_like(level) for level in t]
    expected = cwd_loss(s, [torch.zeros_like(level) for level in t], 0.5, relative=True)
    torch.testing.assert_close(cwd_loss(s, t, 0.5, relative=True), expected)
    assert expected < 10


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_one_map_instead_of_a_pyramid_is_an_error(side):
    level = torch.zeros(2, 3, 4, 4)
    pair = (level, [level]) if side == "student" else ([level], level)
    message = rf"sequence of maps of the {side}, found one map \[2, 3, 4, 4\]; .* data_idx"
    with pytest.raises(ValueError, match=message):
        cwd_loss(*pair)


def test_maps_that_differ_are_an_error():
    with pytest.raises(ValueError, match=r"CWD level 0: .*student \[1, 2, 3, 3\] and teacher"):
        cwd_loss([torch.zeros(1, 2, 3, 3)], [torch.zeros(1, 2, 3, 4)])


@pytest.mark.parametrize("tau", [0.0, -1.0, float("nan")])
def test_a_temperature_that_is_not_positive_is_an_error(tau):
    with pytest.raises(ValueError, match="tau > 0"):
        CWDLoss(tau=tau)
