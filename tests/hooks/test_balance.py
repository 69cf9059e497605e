"""Shares of gradients to scales: the arithmetic of LossBalanceHook, without a run."""

from __future__ import annotations

import pytest
import torch

from kd_det.hooks._balance import LARGEST, SMALLEST, GradientBalance


def balance(*shares: float, momentum: float = 0.5) -> GradientBalance:
    return GradientBalance({f"loss_{i}": share for i, share in enumerate(shares)}, momentum)


def test_first_norms_count_in_full():
    found = balance(0.5, 2.0, momentum=0.1)
    assert found.scales.tolist() == [1, 1]
    found.update(torch.tensor([3.0, 6.0, 0.5]))
    torch.testing.assert_close(found.scales, torch.tensor([0.5 * 3 / 6, 2 * 3 / 0.5]))
    torch.testing.assert_close(found.measured, torch.tensor([2.0, 0.5 / 3]))


def test_means_are_those_worked_by_hand():
    found = balance(1.0, momentum=0.25)
    norms = [(1.0, 2.0), (3.0, 1.0), (2.0, 8.0)]
    for norm in norms:
        found.update(torch.tensor(norm))
    weights = [0.25 * 0.75**2, 0.25 * 0.75, 0.25]
    task, term = (sum(w * n[i] for w, n in zip(weights, norms)) for i in (0, 1))
    assert found.scales.item() == pytest.approx(task / term)


def test_constant_norms_keep_the_share_exactly_there():
    found = balance(0.3)
    for _ in range(20):
        found.update(torch.tensor([7.0, 0.2]))
        assert found.scales.item() * 0.2 == pytest.approx(0.3 * 7)


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_a_bad_norm_leaves_its_scale_and_its_mean(bad):
    found = balance(1.0, 1.0)
    found.update(torch.tensor([1.0, 2.0, 4.0]))
    before = found.scales.clone()
    found.update(torch.tensor([5.0, bad, 4.0]))
    assert found.scales[0] == before[0] and found.scales[1] != before[1]
    assert found.measured[0] == 2
    # Without a norm of the task, nothing can be said of any term.
    before = found.scales.clone()
    found.update(torch.tensor([bad, 9.0, 9.0]))
    assert torch.equal(found.scales, before)
    found.update(torch.tensor([5.0, 2.0, 4.0]))
    assert found.scales.isfinite().all() and found.scales[0] > before[0]


def test_a_term_that_never_had_a_norm_has_scale_one():
    found = balance(0.5, 0.5)
    found.update(torch.tensor([1.0, 0.0, 1.0]))
    assert found.scales.tolist() == [1, 0.5]


def test_scales_stay_in_bounds():
    found = balance(1.0, 1.0)
    found.update(torch.tensor([1.0, 1e-30, 1e30]))
    torch.testing.assert_close(found.scales, torch.tensor([LARGEST, SMALLEST]))


def test_balance_goes_on_from_its_state():
    first, second = balance(1.0), balance(1.0)
    first.update(torch.tensor([1.0, 3.0]))
    second.load_state_dict(first.state_dict())
    for each in (first, second):
        each.update(torch.tensor([2.0, 1.0]))
    assert torch.equal(first.scales, second.scales)
    other = GradientBalance({"loss_1": 0.5, "loss_0": 2.0}, 0.5)
    another = balance(2.0, 0.5)
    another.update(torch.tensor([1.0, 3.0, 4.0]))
    other.load_state_dict(another.state_dict())  # whatever the order of the config
    assert torch.equal(other.scales, another.scales.flip(0))
    for each, norms in ((another, [2.0, 1.0, 5.0]), (other, [2.0, 5.0, 1.0])):
        each.update(torch.tensor(norms))
    assert torch.equal(other.scales, another.scales.flip(0))
    with pytest.raises(ValueError, match=r"expected the terms \['loss_0', 'loss_1'\], found"):
        balance(1.0, 1.0).load_state_dict(first.state_dict())
