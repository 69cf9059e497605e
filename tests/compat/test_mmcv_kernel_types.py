"""Ops of a compiled mmcv in types and layouts that their kernels lack."""

from __future__ import annotations

import mmcv.ops
import pytest
import torch

from kd_det.compat.mmcv.kernel_types import OPS, as_kernels_need


def scale(x, factor, output, *, plus):
    """An op as a compiled one is: of one type, with an output that it is handed."""
    if {x.dtype, factor.dtype, output.dtype} != {torch.float32}:
        raise RuntimeError("expected scalar type Float")
    output.copy_(x * factor + plus)
    return len(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_computed_as_kernels_need_and_written_in_the_type_of_the_output(dtype):
    x, factor = torch.randn(2, 5).to(dtype)
    output, version = torch.zeros_like(x), x._version
    assert as_kernels_need(scale, {torch.float32}, (2,))(x, factor, output, plus=1.0) == 5
    assert torch.equal(output, (x.float() * factor.float() + 1).to(dtype))
    assert x._version == version  # inputs are left alone: autograd may need them


def test_types_with_a_kernel_are_passed_on():
    x = torch.ones(3, dtype=torch.float64)
    call = as_kernels_need(lambda x: x, {torch.float32, torch.float64}, ())
    assert call(x) is x


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_whichever_mmcv_is_installed_takes_the_types_of_amp(dtype):
    boxes = torch.tensor([[0.0, 0, 8, 8], [1, 0, 8, 8], [8, 8, 16, 16]], dtype=dtype)
    scores = torch.tensor([0.5, 0.75, 0.25], dtype=dtype)
    assert mmcv.ops.nms(boxes, scores, 0.5)[1].tolist() == [1, 2]
    x = torch.ones(1, 2, 4, 4, dtype=dtype, requires_grad=True)
    rois = torch.tensor([[0.0, 0, 0, 4, 4]], dtype=dtype)
    bins = mmcv.ops.roi_align(x, rois, 2, 1.0, 2, "avg", True)
    assert bins.dtype == dtype and torch.equal(bins, torch.ones_like(bins))
    bins.sum().backward()
    assert x.grad.dtype == dtype and x.grad.sum() == 8


def test_channels_last_changes_no_value():
    x = torch.randn(2, 3, 8, 8)
    rois = torch.tensor([[1.0, 0, 2, 5, 7]])
    bins, again = (
        mmcv.ops.roi_align(each, rois, 2, 1.0, 2, "avg", True)
        for each in (x, x.contiguous(memory_format=torch.channels_last))
    )
    assert torch.equal(bins, again)


def test_names_are_those_of_mmcv():
    import mmcv._ext

    assert all(callable(getattr(mmcv._ext, name)) for name in OPS)
