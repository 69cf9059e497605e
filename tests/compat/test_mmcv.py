"""`mmcv.ops` without a compiled extension: same answers as slow references, same gradients.

Everything goes through mmcv's own public functions. Where a compiled mmcv is installed they are
pointed to our kernels for these tests, so that the same is tested everywhere.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import math
import sys

import mmcv.ops
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from kd_det.compat.mmcv import extension
from kd_det.compat.mmcv import roi as roi_ops
from kd_det.compat.mmcv.common import MissingOpError

BREAKAGE = {"mmcv": "import mmcv.ops"}

DEVICES = ["cpu"]
if torch.cuda.is_available():
    DEVICES.append(pytest.param("cuda", marks=pytest.mark.gpu))
# `import_module`, since mmcv.ops has functions of the same names as these modules
MODULES = [
    importlib.import_module(f"mmcv.ops.{name}")
    for name in ("nms", "roi_align", "roi_pool", "deform_conv", "modulated_deform_conv")
    + ("focal_loss", "multi_scale_deform_attn", "info", "bbox", "carafe", "masked_conv")
    + ("deform_roi_pool",)
]


def compiled_mmcv() -> bool:
    found = importlib.machinery.PathFinder.find_spec("mmcv._ext", list(mmcv.__path__))
    return found is not None


@pytest.fixture(autouse=True)
def our_kernels(monkeypatch):
    """mmcv's Python code on top of our module, whatever else is installed."""
    spec = extension._Finder().find_spec("mmcv._ext", None)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for user in MODULES:
        monkeypatch.setattr(user, "ext_module", module)


def test_breaks_without_the_patch(unpatched):
    if compiled_mmcv():
        assert unpatched["mmcv"] is None
    else:
        assert "mmcv._ext" in unpatched["mmcv"]


def test_a_compiled_extension_wins():
    kinds = [finder if isinstance(finder, type) else type(finder) for finder in sys.meta_path]
    assert kinds.index(extension._Finder) > kinds.index(importlib.machinery.PathFinder)
    ours = sys.modules["mmcv._ext"].__spec__.origin == extension.__file__
    assert ours != compiled_mmcv()


def test_the_extension_is_seen_by_those_who_look_for_it():
    from mmcv.utils import ext_loader
    from mmengine.utils.dl_utils import mmcv_full_available

    assert mmcv_full_available()
    if hasattr(__import__("pkgutil"), "find_loader"):  # gone in Python 3.14, mmcv still calls it
        assert ext_loader.check_ops_exist()
    assert "torchvision" in mmcv.ops.get_compiler_version()


def test_a_missing_op_says_so_when_called():
    features = torch.zeros(1, 4, 4, 4)
    missing = "'deform_roi_pool_forward' needs compiled mmcv"
    with pytest.raises(MissingOpError, match=missing) as caught:
        mmcv.ops.deform_roi_pool(features, torch.zeros(1, 5), torch.zeros(0), (2, 2))
    assert "pip install --no-build-isolation" in str(caught.value)
    with pytest.raises(MissingOpError, match="pool_mode='max'"):
        mmcv.ops.roi_align(features, torch.zeros(1, 5), 2, 1.0, 0, "max", True)


def boxes_and_scores(count: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 50
    size = torch.rand(count, 2, generator=generator) * 40 + 1
    scores = (torch.randperm(count, generator=generator) + 1) / count
    return torch.cat([corner, corner + size], 1), scores


def slow_iou(a: list[float], b: list[float], offset: int) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]) + offset)
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]) + offset)
    area_a = (a[2] - a[0] + offset) * (a[3] - a[1] + offset)
    area_b = (b[2] - b[0] + offset) * (b[3] - b[1] + offset)
    return width * height / (area_a + area_b - width * height)


def slow_soft_nms(boxes, scores, threshold, sigma, min_score, method, offset):
    """Greedy, one box and one neighbour at a time; "drop" is plain NMS with >=."""
    left = list(enumerate(scores))
    kept = []
    while left:
        best, score = max(left, key=lambda entry: entry[1])
        kept.append((best, score))
        remaining = []
        for i, value in left:
            if i == best:
                continue
            iou = slow_iou(boxes[best], boxes[i], offset)
            if method == "gaussian":
                value *= math.exp(-iou * iou / sigma)
            elif iou >= threshold:
                value *= 1 - iou if method == "linear" else 0
            if value >= min_score:
                remaining.append((i, value))
        left = remaining
    return kept


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("offset", [0, 1])
def test_nms(device, offset):
    boxes, scores = boxes_and_scores(60, seed=offset)
    dets, keep = mmcv.ops.nms(boxes.to(device), scores.to(device), 0.4, offset)
    expected = slow_soft_nms(boxes.tolist(), scores.tolist(), 0.4, 1, 1e-9, "naive", offset)
    assert keep.tolist() == [i for i, _ in expected] and 5 < len(keep) < 60
    assert torch.equal(dets.cpu(), torch.cat([boxes, scores[:, None]], 1)[keep.cpu()])


def test_nms_of_nothing_of_halves_and_of_arrays():
    dets, keep = mmcv.ops.nms(torch.zeros(0, 4), torch.zeros(0), 0.5)
    assert dets.shape == (0, 5) and keep.shape == (0,) and keep.dtype == torch.long
    boxes, scores = boxes_and_scores(30, seed=3)
    half = mmcv.ops.nms(boxes.half(), scores.half(), 0.5)[1]
    assert torch.equal(half, mmcv.ops.nms(boxes.half().float(), scores.half().float(), 0.5)[1])
    array = mmcv.ops.nms(boxes.numpy(), scores.numpy(), 0.5)[1]
    assert isinstance(array, np.ndarray)
    assert array.tolist() == mmcv.ops.nms(boxes, scores, 0.5)[1].tolist()


def test_nms_by_score_count_and_class():
    boxes, scores = boxes_and_scores(60, seed=4)
    keep = mmcv.ops.nms(boxes, scores, 0.5, score_threshold=0.3, max_num=5)[1]
    assert len(keep) == 5 and (scores[keep] > 0.3).all()
    classes = torch.arange(60) % 3
    kept = mmcv.ops.batched_nms(boxes, scores, classes, dict(type="nms", iou_threshold=0.5))[1]
    apart = [mmcv.ops.nms(boxes[classes == c], scores[classes == c], 0.5)[1] for c in range(3)]
    assert len(kept) == sum(map(len, apart))


@pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
@pytest.mark.parametrize("offset", [0, 1])
def test_soft_nms(method, offset):
    boxes, scores = boxes_and_scores(40, seed=7)
    arguments = (0.3, 0.5, 0.05, method, offset)
    dets, keep = mmcv.ops.soft_nms(boxes, scores, *arguments)
    expected = slow_soft_nms(boxes.tolist(), scores.tolist(), *arguments)
    assert keep.tolist() == [i for i, _ in expected]
    torch.testing.assert_close(dets[:, 4], torch.tensor([score for _, score in expected]))
    assert torch.equal(dets[:, :4], boxes[keep])
    assert mmcv.ops.soft_nms(torch.zeros(0, 4), torch.zeros(0))[0].shape == (0, 5)


def bilinear(plane: Tensor, y: float, x: float) -> float:
    """Value between pixels; pixels outside the plane are 0."""
    height, width = plane.shape
    total = 0.0
    for row in (math.floor(y), math.floor(y) + 1):
        for col in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < height and 0 <= col < width:
                total += (1 - abs(y - row)) * (1 - abs(x - col)) * float(plane[row, col])
    return total


def slow_roi_align(features, roi, side, scale, samples, aligned) -> Tensor:
    shift = 0.5 if aligned else 0.0
    x1, y1, x2, y2 = (float(value) * scale - shift for value in roi[1:])
    width, height = x2 - x1, y2 - y1
    if not aligned:
        width, height = max(width, 1.0), max(height, 1.0)
    out = torch.zeros(features.shape[1], side, side, dtype=features.dtype)
    for c in range(features.shape[1]):
        plane = features[int(roi[0]), c]
        last_y, last_x = plane.shape[0] - 1, plane.shape[1] - 1
        for i in range(side):
            for j in range(side):
                total = 0.0
                for m in range(samples):
                    for n in range(samples):
                        y = y1 + (i + (m + 0.5) / samples) * height / side
                        x = x1 + (j + (n + 0.5) / samples) * width / side
                        if -1 <= y <= last_y + 1 and -1 <= x <= last_x + 1:
                            total += bilinear(plane, min(max(y, 0), last_y), min(max(x, 0), last_x))
                out[c, i, j] = total / samples**2
    return out


ROIS = torch.tensor([[0, 2, 3, 17, 19], [1, -3, 5, 9, 30], [0, 4, 4, 4.5, 4.5]]).double()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("aligned", [True, False])
def test_roi_align(device, aligned):
    features = torch.randn(2, 2, 6, 5, generator=torch.Generator().manual_seed(0)).double()
    out = mmcv.ops.roi_align(features.to(device), ROIS.to(device), 2, 0.25, 2, "avg", aligned)
    for k, roi in enumerate(ROIS):
        torch.testing.assert_close(out[k].cpu(), slow_roi_align(features, roi, 2, 0.25, 2, aligned))


@pytest.mark.parametrize("aligned", [True, False])
def test_roi_align_is_torchvisions_to_the_bit(aligned):
    """With the adaptive number of samples (0) that mmdet uses."""
    from torchvision.ops import roi_align

    features = torch.randn(2, 3, 20, 30, requires_grad=True)
    rois = ROIS.float()
    ours = mmcv.ops.roi_align(features, rois, (3, 2), 0.5, 0, "avg", aligned)
    theirs = roi_align(features, rois, (3, 2), 0.5, 0, aligned)
    assert torch.equal(ours, theirs)
    weight = torch.randn_like(ours)
    ours = torch.autograd.grad((ours * weight).sum(), features)[0]
    theirs = torch.autograd.grad((theirs * weight).sum(), features)[0]
    assert torch.equal(ours, theirs) and ours.abs().sum() > 0


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("aligned", [True, False])
def test_roi_align_gradient(device, aligned):
    features = torch.randn(2, 1, 5, 4, device=device, dtype=torch.double, requires_grad=True)
    rois = ROIS.to(device)
    assert gradcheck(
        lambda x: mmcv.ops.roi_align(x, rois, 2, 0.25, 0, "avg", aligned),
        features,
        nondet_tol=1e-12,  # atomic additions on a GPU
    )


def test_roi_align_without_rois():
    features = torch.randn(1, 2, 4, 4, requires_grad=True)
    out = mmcv.ops.roi_align(features, torch.zeros(0, 5), 2, 1.0, 0, "avg", True)
    assert out.shape == (0, 2, 2, 2)
    out.sum().backward()
    assert features.grad.abs().sum() == 0


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_roi_align_in_16_bits(device, dtype):
    features = torch.randn(1, 2, 8, 8, device=device, dtype=dtype, requires_grad=True)
    rois = torch.tensor([[0, 1, 1, 6, 7]], device=device, dtype=dtype)
    # On a CPU, old torch has no autocast to float16.
    with torch.autocast(device, dtype=torch.bfloat16 if device == "cpu" else dtype):
        out = mmcv.ops.roi_align(features, rois, 2, 1.0, 0, "avg", True)
    assert out.dtype == dtype
    exact = mmcv.ops.roi_align(features.float(), rois.float(), 2, 1.0, 0, "avg", True)
    torch.testing.assert_close(out, exact.to(dtype))
    out.sum().backward()
    assert features.grad.dtype == dtype and features.grad.abs().sum() > 0


def test_roi_align_in_16_bits_converts_some_channels_at_a_time(monkeypatch):
    whole = torch.randn(2, 6, 8, 8).bfloat16().requires_grad_()
    rois = torch.tensor([[0, 1, 1, 6, 7], [1, 0, 2, 7, 5]]).bfloat16()

    def run() -> tuple[Tensor, Tensor]:
        out = mmcv.ops.roi_align(whole, rois, 2, 1.0, 0, "avg", True)
        return out, torch.autograd.grad(out.square().sum(), whole)[0]

    expected = run()
    monkeypatch.setattr(roi_ops, "CONVERTED_AT_ONCE", 2 * 2 * 8 * 8)
    largest: list[int] = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **kwargs or {})
            if isinstance(result, Tensor) and result.dtype == torch.float32:
                largest.append(result.numel())
            return result

    with Sizes():
        found = run()
    assert all(map(torch.equal, found, expected))
    assert max(largest) == 2 * 2 * 8 * 8


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_roi_align_has_a_deterministic_backward_pass(aligned, sampling_ratio, monkeypatch):
    monkeypatch.setattr(roi_ops, "ROIS_AT_ONCE", 2)
    rois = torch.cat([ROIS, torch.tensor([[1.0, 60, 60, 90, 90], [0, 9, 9, 5, 5]])])
    grad = torch.randn(5, 2, 3, 2, dtype=torch.double)
    arguments = (grad, rois, 0.25, 3, 2, 2, 2, 6, 5, sampling_ratio, aligned)
    expected = torch.ops.torchvision._roi_align_backward(*arguments)
    torch.testing.assert_close(roi_ops.roi_align_backward_by_products(*arguments), expected)
    empty = (grad[:0], rois[:0], *arguments[2:])
    assert roi_ops.roi_align_backward_by_products(*empty).abs().sum() == 0


def slow_roi_pool(features, roi, side, scale) -> Tensor:
    """As mmcv: bins are cut without rounding the RoI, then each is rounded outwards."""
    height, width = features.shape[-2:]
    x1, y1, x2, y2 = (float(value) for value in roi[1:])
    x1, y1, x2, y2 = x1 * scale, y1 * scale, (x2 + 1) * scale, (y2 + 1) * scale
    out = torch.zeros(features.shape[1], side, side, dtype=features.dtype)
    if x2 <= x1 or y2 <= y1:
        return out
    for i in range(side):
        for j in range(side):
            top = min(max(math.floor(i * (y2 - y1) / side + y1), 0), height)
            low = min(max(math.ceil((i + 1) * (y2 - y1) / side + y1), 0), height)
            left = min(max(math.floor(j * (x2 - x1) / side + x1), 0), width)
            right = min(max(math.ceil((j + 1) * (x2 - x1) / side + x1), 0), width)
            if low > top and right > left:
                window = features[int(roi[0]), :, top:low, left:right]
                out[:, i, j] = window.flatten(1).amax(1)
    return out


@pytest.mark.parametrize("device", DEVICES)
def test_roi_pool(device):
    rois = [[0, 2, 3, 17, 19], [1, -3, 5, 9, 30], [0, 8, 8, 4, 4], [1, 90, 90, 99, 99]]
    rois = torch.tensor(rois, dtype=torch.double)
    features = torch.randperm(2 * 2 * 7 * 6).view(2, 2, 7, 6).double() - 40
    features = features.to(device).requires_grad_()
    out = mmcv.ops.roi_pool(features, rois.to(device), 3, 0.25)
    for k, roi in enumerate(rois):
        assert torch.equal(out[k].cpu(), slow_roi_pool(features.detach().cpu(), roi, 3, 0.25))
    assert gradcheck(lambda x: mmcv.ops.roi_pool(x, rois.to(device), 3, 0.25), features)
    half = mmcv.ops.roi_pool(features.half(), rois.to(device).half(), 3, 0.25)
    torch.testing.assert_close(half, out.half())


def test_roi_pool_takes_no_step_per_roi():
    class Calls(TorchDispatchMode):
        number = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.number += 1
            return function(*args, **kwargs or {})

    features, calls = torch.randn(2, 3, 20, 30), []
    for number in (2, 100):
        corners = torch.rand(number, 2) * 40
        rois = torch.cat([torch.arange(number)[:, None] % 2, corners, corners + 30], 1)
        with Calls() as counted:
            out = mmcv.ops.roi_pool(features, rois, 3, 0.5)
        calls.append(counted.number)
        assert all(torch.equal(slow_roi_pool(features, r, 3, 0.5), o) for r, o in zip(rois, out))
    assert calls[0] == calls[1]


def test_roi_pool_gathers_rois_of_like_size_together(monkeypatch):
    monkeypatch.setattr(roi_ops, "GATHERED_AT_ONCE", 1)
    features = torch.randn(2, 3, 9, 9)
    out = mmcv.ops.roi_pool(features, ROIS.float(), 2, 0.5)
    assert all(torch.equal(slow_roi_pool(features, r, 2, 0.5), o) for r, o in zip(ROIS, out))


def slow_deform_conv(x, offset, weight, mask, stride, padding, dilation, groups, deform_groups):
    batch, channels, height, width = x.shape
    filters, _, kh, kw = weight.shape
    rows = (height + 2 * padding - dilation * (kh - 1) - 1) // stride + 1
    cols = (width + 2 * padding - dilation * (kw - 1) - 1) // stride + 1
    out = torch.zeros(batch, filters, rows, cols, dtype=x.dtype)
    for b, f, i, j in np.ndindex(batch, filters, rows, cols):
        for c_in_group in range(channels // groups):
            c = f // (filters // groups) * (channels // groups) + c_in_group
            part = c // (channels // deform_groups) * kh * kw
            for m, n in np.ndindex(kh, kw):
                k = part + m * kw + n
                y = i * stride - padding + m * dilation + float(offset[b, 2 * k, i, j])
                z = j * stride - padding + n * dilation + float(offset[b, 2 * k + 1, i, j])
                value = bilinear(x[b, c], y, z) * float(weight[f, c_in_group, m, n])
                out[b, f, i, j] += value * (1.0 if mask is None else float(mask[b, k, i, j]))
    return out


def deform_inputs(device="cpu"):
    """Two groups, two deformable groups, a non-square kernel and map."""
    generator = torch.Generator().manual_seed(5)

    def random(*shape):
        values = torch.randn(*shape, generator=generator, dtype=torch.double)
        return values.to(device).requires_grad_()

    return (
        random(2, 4, 5, 4),
        random(2, 24, 3, 3),
        random(2, 2, 3, 2),
        random(2, 12, 3, 3),
        random(2),
    )


GEOMETRY = (2, 1, 1, 2, 2)  # stride, padding, dilation, groups, deformable groups


@pytest.mark.parametrize("device", DEVICES)
def test_deform_conv(device):
    x, offset, weight, _, _ = deform_inputs(device)
    out = mmcv.ops.deform_conv2d(x, offset, weight, *GEOMETRY)
    slow = slow_deform_conv(*(t.detach().cpu() for t in (x, offset, weight)), None, *GEOMETRY)
    torch.testing.assert_close(out.cpu(), slow)
    assert gradcheck(
        lambda *inputs: mmcv.ops.deform_conv2d(*inputs, *GEOMETRY),
        (x, offset, weight),
        nondet_tol=1e-12,
    )


@pytest.mark.parametrize("device", DEVICES)
def test_modulated_deform_conv(device):
    x, offset, weight, mask, bias = deform_inputs(device)
    out = mmcv.ops.modulated_deform_conv2d(x, offset, mask, weight, bias, *GEOMETRY)
    slow = slow_deform_conv(*(t.detach().cpu() for t in (x, offset, weight, mask)), *GEOMETRY)
    torch.testing.assert_close(out.cpu(), slow + bias.cpu()[:, None, None])
    for inputs in ((x, offset, mask, weight, bias), (x, offset, mask, weight, None)):
        assert gradcheck(
            lambda *inputs: mmcv.ops.modulated_deform_conv2d(*inputs, *GEOMETRY),
            inputs,
            nondet_tol=1e-12,
        )


@pytest.mark.parametrize("modulated", [False, True])
def test_deform_conv_at_offsets_that_are_nan_is_nan(modulated):
    # As where a training diverges: a loss that is NaN, and no process that dies.
    x, offset, weight, mask, bias = deform_inputs()
    offset = offset.detach().clone()
    offset[1, 3] = float("nan")
    if modulated:
        out = mmcv.ops.modulated_deform_conv2d(x, offset, mask, weight, bias, *GEOMETRY)
    else:
        out = mmcv.ops.deform_conv2d(x, offset, weight, *GEOMETRY)
    assert out[0].isfinite().all() and out[1].isnan().all()
    out.sum().backward()


def test_deform_conv_without_offset_is_a_convolution():
    torch.manual_seed(0)
    for name in ("DCN", "DCNv2"):
        layer = mmcv.ops.DeformConv2dPack if name == "DCN" else mmcv.ops.ModulatedDeformConv2dPack
        layer = layer(4, 6, 3, padding=1)
        x = torch.randn(2, 4, 7, 5)
        # The packs start with offsets 0; the modulation starts as sigmoid(0).
        expected = F.conv2d(x, layer.weight, padding=1) * (1 if name == "DCN" else 0.5)
        torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            low = layer(x)
        assert low.dtype == torch.bfloat16
        torch.testing.assert_close(low.float(), expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("weighted", [False, True])
def test_sigmoid_focal_loss(device, weighted):
    x = torch.randn(7, 3, device=device, dtype=torch.double, requires_grad=True)
    target = torch.tensor([0, 1, 2, 3, 3, 1, 0], device=device)  # 3: background
    weight = torch.tensor([0.5, 2.0, 3.0], device=device).double() if weighted else None
    p, t = x.sigmoid(), F.one_hot(target, 4)[:, :3]
    expected = -0.3 * t * (1 - p) ** 1.5 * p.log() - 0.7 * (1 - t) * p**1.5 * (1 - p).log()
    if weighted:
        expected = expected * torch.cat([weight, weight.new_ones(1)])[target][:, None]
    arguments = (target, 1.5, 0.3, weight)
    out = mmcv.ops.sigmoid_focal_loss(x, *arguments, "none")
    torch.testing.assert_close(out, expected)
    assert gradcheck(lambda x: mmcv.ops.sigmoid_focal_loss(x, *arguments, "mean"), x)


def test_sigmoid_focal_loss_of_extreme_logits():
    """Finite, and linear in the logit where the prediction is sure and wrong."""
    x = torch.tensor([[-200.0, 30.0, 200.0]], requires_grad=True)
    out = mmcv.ops.sigmoid_focal_loss(x, torch.tensor([0]), 2.0, 0.25, None, "none")
    torch.testing.assert_close(out, torch.tensor([[50.0, 22.5, 150.0]]))
    out.sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([[-0.25, 0.75, 0.75]]))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_softmax_focal_loss(device, gamma):
    x = torch.randn(5, 3, device=device, dtype=torch.double, requires_grad=True)
    target = torch.tensor([0, 1, 2, 1, 0], device=device)
    log_p = x.log_softmax(1).gather(1, target[:, None])[:, 0]
    expected = -0.25 * (1 - log_p.exp()) ** gamma * log_p
    out = mmcv.ops.softmax_focal_loss(x, target, gamma, 0.25, None, "none")
    torch.testing.assert_close(out, expected)
    assert gradcheck(lambda x: mmcv.ops.softmax_focal_loss(x, target, gamma, 0.25), x)


@pytest.mark.parametrize("device", DEVICES)
def test_multi_scale_deformable_attention(device):
    """What mmcv calls on a GPU equals what it calls on a CPU, in value and gradient."""
    from mmcv.ops.multi_scale_deform_attn import (
        MultiScaleDeformableAttnFunction,
        multi_scale_deformable_attn_pytorch,
    )

    generator = torch.Generator().manual_seed(1)
    shapes = torch.tensor([[4, 3], [2, 2]], device=device)
    starts = torch.tensor([0, 12], device=device)

    def random(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.double).to(device)

    value, where, weight = random(2, 16, 2, 3), random(2, 5, 2, 2, 2, 2), random(2, 5, 2, 2, 2)
    inputs = [t.requires_grad_() for t in (value, where, weight)]

    def attend(value, where, weight):
        return MultiScaleDeformableAttnFunction.apply(value, shapes, starts, where, weight, 64)

    expected = multi_scale_deformable_attn_pytorch(value, shapes, where, weight)
    torch.testing.assert_close(attend(*inputs), expected)
    assert gradcheck(attend, inputs, nondet_tol=1e-12)


def test_nms_match_groups_boxes_with_what_they_suppress():
    from mmcv.ops import nms_match

    dets = torch.tensor(
        [
            [0, 0, 10, 10, 0.5],
            [50, 50, 60, 60, 0.6],
            [0, 0, 10, 9, 0.9],  # IoU 0.9 with the first
            [0, 0, 10, 18, 0.8],  # IoU 0.5 with the one before, 0.56 with the first
            [70, 70, 70, 80, 0.7],  # no area
        ]
    )
    groups = [group.tolist() for group in nms_match(dets, 0.5)]
    assert groups == [[2, 3, 0], [4], [1]]
    assert [g.tolist() for g in nms_match(dets, 0.51)] == [[2, 0], [3], [4], [1]]
    assert nms_match(dets[:0], 0.5) == []
    kept = torch.ops.torchvision.nms(dets[:, :4], dets[:, 4], 0.51)
    assert [group[0] for group in nms_match(dets, 0.51)] == kept.tolist()


def test_offsets_of_another_size_are_refused_in_a_sentence():
    """DyHead's; mmcv's kernel misreads them, and torchvision's raises of its own."""
    x, weight = torch.zeros(1, 2, 4, 4), torch.zeros(2, 2, 3, 3)
    offset, mask = torch.zeros(1, 18, 8, 8), torch.zeros(1, 9, 8, 8)
    with pytest.raises(MissingOpError, match="offsets of another size"):
        mmcv.ops.modulated_deform_conv2d(x, offset, mask, weight, None, 1, 1)


@pytest.mark.parametrize("device", DEVICES)
def test_carafe(device):
    kernel, groups, scale = 3, 2, 2
    generator = torch.Generator().manual_seed(0)
    features, masks = (
        torch.randn(*shape, generator=generator, dtype=torch.double).to(device).requires_grad_()
        for shape in ((2, 4, 3, 5), (2, groups * kernel**2, 6, 10))
    )
    out = mmcv.ops.carafe(features, masks, kernel, groups, scale)
    x, m = features.detach().cpu(), masks.detach().cpu()
    slow = torch.zeros(2, 4, 6, 10, dtype=torch.double)
    for b, c, i, j, di, dj in np.ndindex(2, 4, 6, 10, kernel, kernel):
        y, z = i // scale + di - 1, j // scale + dj - 1
        if 0 <= y < 3 and 0 <= z < 5:
            part = c // (4 // groups) * kernel**2
            slow[b, c, i, j] += x[b, c, y, z] * m[b, part + di * kernel + dj, i, j]
    torch.testing.assert_close(out.cpu(), slow)
    assert gradcheck(lambda *i: mmcv.ops.carafe(*i, kernel, groups, scale), (features, masks))
    half = mmcv.ops.carafe(features.half(), masks.half(), kernel, groups, scale)
    torch.testing.assert_close(half.double(), out, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("padding", [0, 1])
def test_masked_conv_is_a_convolution_at_the_places_of_the_mask(device, padding):
    torch.manual_seed(0)
    kernel = 2 * padding + 1
    layer = mmcv.ops.MaskedConv2d(3, 4, kernel, padding=padding).to(device)
    x, mask = torch.randn(1, 3, 5, 6, device=device), torch.rand(1, 5, 6, device=device) > 0.6
    expected = F.conv2d(x, layer.weight, layer.bias, padding=padding) * mask
    torch.testing.assert_close(layer(x, mask), expected)
    assert not layer(x, torch.zeros_like(mask)).any()
