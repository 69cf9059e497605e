"""PyramidConnector brings each level to the teacher's channels."""

from __future__ import annotations

import pytest
import torch

from kd_det.connectors import PyramidConnector


def pyramid(*channels: int) -> list[torch.Tensor]:
    return [torch.randn(2, c, 8 >> i, 6 >> i) for i, c in enumerate(channels)]


def test_each_level_is_a_convolution_of_its_own():
    connector = PyramidConnector([3, 5], [7, 2])
    maps = pyramid(3, 5)
    results = connector(maps)
    assert [list(x.shape) for x in results] == [[2, 7, 8, 6], [2, 2, 4, 3]]
    for result, x, conv in zip(results, maps, connector.convs):
        expected = torch.einsum("oc,nchw->nohw", conv.weight[..., 0, 0], x)
        torch.testing.assert_close(result, expected + conv.bias[None, :, None, None])
    assert all(conv.bias.eq(0).all() for conv in connector.convs)


def test_one_level_may_come_alone():
    connector = PyramidConnector([3], [4])
    (x,) = pyramid(3)
    torch.testing.assert_close(connector(x), connector([x])[0])


def test_gradient_reaches_all_of_it():
    connector = PyramidConnector([3, 5], [7, 2]).double()
    maps = [x.double().requires_grad_() for x in pyramid(3, 5)]
    connector(maps)[0].square().mean().backward()
    assert maps[0].grad.abs().sum() > 0 and maps[1].grad is None
    sum(x.square().sum() for x in connector(maps)).backward()
    assert all(p.grad.abs().sum() > 0 for p in connector.parameters())


@pytest.mark.parametrize(("ours", "theirs"), [([], []), ([3], [3, 4])])
def test_lists_must_fit(ours, theirs):
    with pytest.raises(ValueError, match=r"of one length, at least 1, got \["):
        PyramidConnector(ours, theirs)


@pytest.mark.parametrize("maps", [pyramid(3), pyramid(3, 4), torch.zeros(1, 3, 2, 2)])
def test_other_maps_are_refused(maps):
    with pytest.raises(ValueError, match=r"maps of \[3, 5\] channels, got \[3"):
        PyramidConnector([3, 5], [7, 2])(maps)
