"""HCL: the published numbers, a slow second implementation, weights and skipping rule by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kd_det.losses import HCLLoss, hcl_loss

# Height by width: square, wide, narrow, flat; W < side < H; every number of sides skipped.
SIZES = [(8, 8), (6, 11), (7, 2), (5, 3), (4, 9), (3, 5), (2, 7), (1, 6), (1, 1), (9, 1)]


def pyramid(sizes: list[tuple[int, int]], seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 3, *size, generator=generator, dtype=torch.float64) for size in sizes]


def slow_pool(plane: list[list[float]], side: int) -> list[list[float]]:
    """Average pool to side x side; bin i of n entries goes from floor(i n / side) to
    ceil((i + 1) n / side)."""

    def bins(entries: int) -> list[range]:
        return [
            range(i * entries // side, math.ceil((i + 1) * entries / side)) for i in range(side)
        ]

    height, width = len(plane), len(plane[0])
    return [
        [sum(plane[y][x] for y in ys for x in xs) / (len(ys) * len(xs)) for xs in bins(width)]
        for ys in bins(height)
    ]


def slow_hcl(s_feats: list[Tensor], t_feats: list[Tensor]) -> float:
    """num / tot summed over levels, in plain Python. At each level:

    num = MSE(s, t); tot = c = 1
    for side in 4, 2, 1, where side < H: c /= 2; num += c * MSE(pool(s), pool(t)); tot += c
    """

    def mse(s_planes: list, t_planes: list) -> float:
        squares = [
            (a - b) ** 2
            for s_plane, t_plane in zip(s_planes, t_planes)
            for s_row, t_row in zip(s_plane, t_plane)
            for a, b in zip(s_row, t_row)
        ]
        return sum(squares) / len(squares)

    loss = 0.0
    for s, t in zip(s_feats, t_feats):
        s_planes, t_planes = (x.flatten(0, 1).tolist() for x in (s, t))
        num, tot, c = mse(s_planes, t_planes), 1.0, 1.0
        for side in (4, 2, 1):
            if side < s.shape[2]:
                c /= 2
                num += c * mse(
                    [slow_pool(plane, side) for plane in s_planes],
                    [slow_pool(plane, side) for plane in t_planes],
                )
                tot += c
        loss += num / tot
    return loss


def test_equals_the_published_code(golden):
    data = golden("hcl_b")
    levels = len(data["level_loss"])
    s = [data[f"s.{i}"].requires_grad_() for i in range(levels)]
    t = [data[f"t.{i}"] for i in range(levels)]
    loss = HCLLoss()(s, t)
    loss.backward()
    torch.testing.assert_close(loss, data["loss"], rtol=1e-6, atol=0)
    for i in range(levels):
        torch.testing.assert_close(s[i].grad, data[f"grad.{i}"], rtol=1e-4, atol=1e-6)
        level = hcl_loss(s[i : i + 1], t[i : i + 1])
        torch.testing.assert_close(level, data["level_loss"][i], rtol=1e-6, atol=0)
    in_double = hcl_loss([x.detach().double() for x in s], [x.double() for x in t])
    torch.testing.assert_close(in_double, data["loss_f64"].reshape(()), rtol=1e-12, atol=0)


@pytest.mark.parametrize("sizes", [*([size] for size in SIZES), SIZES], ids=str)
def test_equals_the_slow_implementation(sizes):
    s, t = pyramid(sizes, seed=0), pyramid(sizes, seed=1)
    assert float(hcl_loss(s, t)) == pytest.approx(slow_hcl(s, t), rel=1e-12)


@pytest.mark.parametrize(
    "height, expected",
    [
        # The difference is +1 and -1 in equal parts, so each pool averages to 0 and only
        # the weights are left: 1 / (1 + 1/2 + ...), one term per side below the height.
        (8, 1 / (1 + 1 / 2 + 1 / 4 + 1 / 8)),  # sides 4, 2, 1
        (4, 1 / (1 + 1 / 2 + 1 / 4)),  # 4 is skipped and does not halve: 2, 1
        (2, 1 / (1 + 1 / 2)),  # 1
        (1, 1.0),  # none
    ],
)
def test_the_weights_by_hand(height, expected):
    columns = torch.tensor([1.0, -1.0]).repeat(4)  # width 8: every bin has as many +1 as -1
    difference = columns.expand(1, 1, height, 8)
    assert float(hcl_loss([difference], [torch.zeros(1, 1, height, 8)])) == pytest.approx(expected)


def test_only_the_height_decides_what_is_skipped():
    # One column of +1, +1, -1, -1, +1, +1, -1, -1 (H = 8, W = 1): its pool of side 4 keeps the
    # squares at 1, those of side 2 and 1 are 0: (1 + 1/2) / (1 + 1/2 + 1/4 + 1/8) = 0.8.
    tall = torch.tensor([1.0, 1, -1, -1, 1, 1, -1, -1]).reshape(1, 1, 8, 1)
    assert float(hcl_loss([tall], [torch.zeros_like(tall)])) == pytest.approx(0.8)
    # Lying, no side is below the height 1: plain mean squared difference.
    flat = tall.reshape(1, 1, 1, 8)
    assert float(hcl_loss([flat], [torch.zeros_like(flat)])) == 1


def test_a_pooled_feature_is_a_map_of_one_pixel():
    s, t = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]])
    assert hcl_loss([s], [t]) == 2.5  # (1^2 + 2^2) / 2
    assert hcl_loss([s], [t[..., None, None]]) == 2.5


def test_gradient_equals_finite_differences():
    sizes = [(5, 3), (2, 4), (1, 2)]
    t = pyramid(sizes, seed=1)
    s = [x.requires_grad_() for x in pyramid(sizes, seed=0)]
    assert torch.autograd.gradcheck(lambda *levels: hcl_loss(levels, t), s)


@pytest.mark.parametrize("size", [(7, 9), (6, 3), (50, 76)])
def test_deterministic_mode_takes_no_adaptive_pool(size, monkeypatch):
    s, t = (torch.randn(2, 3, *size, dtype=torch.double, requires_grad=True) for _ in range(2))
    expected = hcl_loss([s], [t])
    gradient = torch.autograd.grad(expected, s)[0]
    monkeypatch.setattr(F, "adaptive_avg_pool2d", None)  # no deterministic backward on CUDA
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    loss = hcl_loss([s], [t])
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss, s)[0], gradient)


def test_an_empty_level_adds_nothing():
    s, t = pyramid([(4, 4)], seed=0), pyramid([(4, 4)], seed=1)
    assert hcl_loss([*s, torch.zeros(0, 3, 8, 8)], [*t, torch.zeros(0, 3, 8, 8)]) == hcl_loss(s, t)


@pytest.mark.parametrize(
    "t_shape",
    [[2, 3, 4, 5], [2, 4, 4, 4], [1, 3, 4, 4], [2, 3], [3, 4, 4]],
    ids=["size", "channels", "batch", "pooled", "no-batch"],
)
def test_shapes_that_differ_name_the_level_and_both_shapes(t_shape):
    s, same = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 8, 8)
    found = t_shape + [1, 1] * (len(t_shape) == 2)
    with pytest.raises(ValueError) as error:
        hcl_loss([same, s], [same, torch.zeros(t_shape)])
    assert "HCL level 1" in str(error.value)
    assert f"student [2, 3, 4, 4] and teacher {found}" in str(error.value)


@pytest.mark.parametrize("s_levels, t_levels", [(2, 1), (1, 2), (0, 1), (0, 0)])
def test_level_counts_that_differ_are_an_error(s_levels, t_levels):
    x = torch.zeros(1, 1, 2, 2)
    message = f"got {s_levels} student levels and {t_levels} teacher levels"
    with pytest.raises(ValueError, match=message):
        hcl_loss([x] * s_levels, [x] * t_levels)


@pytest.mark.parametrize("normalize, both", [("level", True), ("channel", False)])
def test_normalised_losses_do_not_depend_on_the_scale(normalize, both):
    s, t = pyramid(SIZES[:3], seed=0), pyramid(SIZES[:3], seed=1)
    expected = hcl_loss(s, t, normalize)
    scaled = [x * 50 for x in s] if both else s
    torch.testing.assert_close(hcl_loss(scaled, [x * 50 for x in t], normalize), expected)
    assert hcl_loss(scaled, [x * 50 for x in t]) > 50 * hcl_loss(s, t)


def test_a_level_is_divided_by_the_teachers_variance():
    s, t = pyramid([(8, 6)], seed=0), pyramid([(8, 6)], seed=1)
    variance = t[0].var(dim=(0, 2, 3), correction=0).mean()
    torch.testing.assert_close(hcl_loss(s, t, "level"), hcl_loss(s, t) / variance)


def test_standardised_maps_of_one_row_cost_twice_what_correlation_leaves():
    # Height 1: no pools. A channel costs 2 (1 - r), r its Pearson correlation.
    s, t = pyramid([(1, 30)], seed=0), pyramid([(1, 30)], seed=1)
    pairs = zip(s[0].transpose(0, 1).flatten(1), t[0].transpose(0, 1).flatten(1))
    r = torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in pairs]).mean()
    torch.testing.assert_close(hcl_loss(s, t, "channel"), 2 * (1 - r))


@pytest.mark.parametrize("normalize", ["level", "channel"])
def test_gradient_of_a_normalised_loss_equals_finite_differences(normalize):
    t = pyramid([(5, 3), (2, 4)], seed=1)
    s = [x.requires_grad_() for x in pyramid([(5, 3), (2, 4)], seed=0)]
    assert torch.autograd.gradcheck(lambda *levels: hcl_loss(levels, t, normalize), s)


@pytest.mark.parametrize("normalize", ["level", "channel"])
@pytest.mark.parametrize("s_factor, t_factor", [(0, 1), (1, 0), (0, 0), (1e30, 1), (1e-30, 1)])
def test_constant_or_extreme_maps_give_no_nan(normalize, s_factor, t_factor):
    s = [(x.float() * s_factor).requires_grad_() for x in pyramid([(6, 4)], seed=0)]
    t = [x.float() * t_factor for x in pyramid([(6, 4)], seed=1)]
    loss = hcl_loss(s, t, normalize)
    assert not loss.isnan()
    assert not torch.autograd.grad(loss, s)[0].isnan().any()


def test_an_unknown_normalisation_is_an_error():
    with pytest.raises(ValueError, match="found 'batch'"):
        HCLLoss(normalize="batch")
