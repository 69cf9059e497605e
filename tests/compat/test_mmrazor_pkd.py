"""PKD of 16-bit maps is that of the same maps in float64."""

from __future__ import annotations

import pytest
import torch

LEFT_OUT = {
    "mmrazor_pkd": """
import torch
from mmrazor.models.losses import PKDLoss
maps = (1e-4 * torch.randn(2, 8, 16, 16)).half().requires_grad_()
PKDLoss()(maps, maps.detach() + 1e-4 * torch.randn(2, 8, 16, 16).half()).backward()
assert maps.grad.isfinite().all(), "NaN"
"""
}


def test_breaks_without_the_patch(left_out):
    # On a CPU, old torch has no such loss of float16 at all.
    assert left_out["mmrazor_pkd"] in (
        "AssertionError: NaN",
        "RuntimeError: \"mse_backward_cpu_out\" not implemented for 'Half'",
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("scale", [1e-4, 1, 2000])
def test_the_gradient_is_that_of_float64(dtype, scale):
    from mmrazor.models.losses import PKDLoss

    given = [(torch.randn(2, 8, side, side) * scale).to(dtype) for side in (8, 4)]
    targets = [x + torch.randn_like(x) * scale for x in given]
    given = [x.requires_grad_() for x in given]
    exact = [x.detach().double().requires_grad_() for x in given]
    loss = PKDLoss()(given, preds_T=targets)
    slow = PKDLoss()(exact, [x.double() for x in targets])
    torch.testing.assert_close(loss, slow.float())
    for x, y in zip(torch.autograd.grad(loss, given), torch.autograd.grad(slow, exact)):
        # Gradients below float16's smallest number are 0: what a gradient scaler is for.
        torch.testing.assert_close(x, y.to(dtype), rtol=0.01, atol=1e-7)
