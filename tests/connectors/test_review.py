"""ReviewFusion: the published numbers, a plain second implementation, gradients, errors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kd_det.connectors import ReviewFusion
from kd_det.losses import hcl_loss


def part(data: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries below `prefix`, without it."""
    return {key[len(prefix) :]: x for key, x in data.items() if key.startswith(prefix)}


def levels(data: dict[str, Tensor], name: str) -> list[Tensor]:
    return [x for _, x in sorted(part(data, f"{name}.").items())]


def detection(data: dict[str, Tensor]) -> ReviewFusion:
    fusion = ReviewFusion([32] * 5, [32] * 5, 32)
    fusion.load_state_dict(part(data, "w."), strict=True)
    return fusion


def classification(data: dict[str, Tensor]) -> ReviewFusion:
    in_channels, out_channels = data["in_channels"].tolist(), data["out_channels"].tolist()
    fusion = ReviewFusion(
        in_channels,
        out_channels,
        int(data["mid_channel"]),
        out_sizes=data["out_shapes"].tolist()[::-1],
    )
    fusion.load_state_dict(part(data, "w."), strict=True)
    return fusion


def randomised(fusion: ReviewFusion, seed: int = 0) -> ReviewFusion:
    """Every parameter and buffer random, in float64; variances positive."""
    generator = torch.Generator().manual_seed(seed)
    fusion.double()
    with torch.no_grad():
        for name, x in fusion.state_dict().items():
            if x.is_floating_point():
                x.copy_(torch.randn(x.shape, generator=generator, dtype=x.dtype))
                if name.endswith("running_var"):
                    x.abs_().add_(0.1)
    return fusion


def random_maps(shapes: list[tuple[int, ...]], seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


# Published numbers


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_detection_chain_equals_the_published_code(golden, train):
    data, suffix = golden("abf_det_a"), "" if train else "_eval"
    fusion = detection(data).train(train)
    s = [x.requires_grad_() for x in levels(data, "s")]
    fused = fusion(s)
    loss = hcl_loss(fused, levels(data, "t"))
    loss.backward()
    close = dict(rtol=1e-4, atol=1e-5)
    for i, expected in enumerate(levels(data, f"o{suffix}")):
        kept = expected.shape[1]
        torch.testing.assert_close(fused[i][:, :kept], expected, **close)
    torch.testing.assert_close(loss, data[f"loss{suffix}"], rtol=1e-6, atol=0)
    for i, expected in enumerate(levels(data, f"grad{suffix}")):
        kept = expected.shape[1]
        torch.testing.assert_close(s[i].grad[:, :kept], expected, rtol=1e-4, atol=1e-6)
    if train:
        parameters = dict(fusion.named_parameters())
        for name, expected in part(data, "gw.").items():
            torch.testing.assert_close(parameters[name].grad, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_detection_loss_equals_the_published_code_in_float64(golden, train):
    data = golden("abf_det_a")
    fusion = detection(data).double().train(train)
    loss = hcl_loss(fusion([x.double() for x in levels(data, "s")]), levels(data, "t"))
    expected = data["loss_f64" if train else "loss_f64_eval"].reshape(())
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_classification_chain_equals_the_published_code(golden, train, double):
    data = golden("reviewkd_cls_b")
    fusion, s = classification(data).train(train), levels(data, "s")
    if double:
        fusion, s = fusion.double(), [x.double() for x in s]
    assert s[3].shape == (2, 120)  # the pooled feature
    fused = fusion(s)
    for found, expected in zip(fused, levels(data, "o" if train else "o_eval")):
        # In train mode the deepest BatchNorm sees two pixels and magnifies rounding.
        torch.testing.assert_close(found.float(), expected, rtol=1e-4, atol=1e-4)
    assert len(fused) == 4


@pytest.mark.parametrize(
    "stem, build", [("abf_det_a", detection), ("reviewkd_cls_b", classification)]
)
def test_running_statistics_equal_the_published_code(golden, stem, build):
    data = golden(stem)
    fusion = build(data).train()
    fusion(levels(data, "s"))
    expected = part(data, "rs.")
    found = {key: x for key, x in fusion.state_dict().items() if key in expected}
    assert {key for key, _ in fusion.named_buffers()} == set(expected)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert all(x == 1 for key, x in found.items() if key.endswith("num_batches_tracked"))


def test_eval_mode_leaves_the_running_statistics_alone(golden):
    data = golden("abf_det_a")
    fusion = detection(data).eval()
    fusion(levels(data, "s"))
    assert all(torch.equal(x, data[f"w.{key}"]) for key, x in fusion.state_dict().items())


# A second implementation


def by_torch(x: Tensor, layers: nn.Sequential, train: bool) -> Tensor:
    """Convolution and batch norm, without a change of the running statistics."""
    conv, norm = layers
    x = F.conv2d(x, conv.weight, padding=conv.padding)
    running = (None, None) if train else (norm.running_mean, norm.running_var)
    return F.batch_norm(x, *running, norm.weight, norm.bias, training=train)


def fused_by_torch(
    fusion: ReviewFusion, s_feats: list[Tensor], train: bool, out_sizes: list | None = None
) -> list[Tensor]:
    """The chain of the paper, from deep to fine:

    x = BN(conv1x1(s)); where a map y was carried, a = sigmoid(conv1x1([x, y]) + bias) and
    x = x * a0 + y * a1; x is resized to the output's size; out = BN(conv3x3(x)); x is carried
    """
    outputs: list[Tensor] = []
    carried = None
    deepest = len(s_feats) - 1
    for level in range(deepest, -1, -1):
        abf = fusion.abfs[deepest - level]
        x = by_torch(s_feats[level], abf.conv1, train)
        if carried is not None:
            y = F.interpolate(carried, x.shape[2:], mode="nearest")
            a = abf.att_conv(torch.cat([x, y], 1))
            x = x * a[:, 0:1] + y * a[:, 1:2]
        if out_sizes is not None:
            x = F.interpolate(x, out_sizes[level], mode="nearest")
        outputs.insert(0, by_torch(x, abf.conv2, train))
        carried = x
    return outputs


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(
    "sizes, out_sizes",
    [
        ([(7, 10), (4, 5), (2, 3)], None),  # odd sides, not square
        ([(5, 3), (1, 4), (1, 2)], None),  # height 1; the narrower map is the finer one
        ([(4, 4), (2, 2), (1, 1)], [(8, 6), (4, 4), (1, 3)]),  # outputs of other sizes
        ([(4, 5), (3, 4)], [(5, 4), (2, 1)]),  # an output smaller than its map: that is carried
        ([(3, 5)], None),  # a single level
    ],
    ids=str,
)
def test_equals_the_plain_implementation(sizes, out_sizes, train):
    in_channels, out_channels = [2, 3, 4][: len(sizes)], [4, 2, 3][: len(sizes)]
    fusion = randomised(ReviewFusion(in_channels, out_channels, 3, out_sizes=out_sizes))
    fusion.train(train)
    s = random_maps([(2, c, *size) for c, size in zip(in_channels, sizes)])
    with torch.no_grad():
        expected = fused_by_torch(fusion, s, train, out_sizes)
        found = fusion(s)
    assert [x.shape[1] for x in found] == out_channels
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


# Gradients


def test_gradient_equals_finite_differences():
    fusion = randomised(ReviewFusion([2, 1], [1, 2], 2)).train()
    s = [x.requires_grad_() for x in random_maps([(2, 2, 3, 2), (2, 1, 1, 2)])]
    assert torch.autograd.gradcheck(lambda *maps: fusion(maps), s)


def test_gradient_flows_from_fine_outputs_to_deep_maps_only():
    fusion = randomised(ReviewFusion([2, 2, 2], [2, 2, 2], 2))
    s = [x.requires_grad_() for x in random_maps([(2, 2, 8, 8), (2, 2, 4, 4), (2, 2, 2, 2)])]
    for level, output in enumerate(fusion(s)):
        weights = torch.arange(output.numel(), dtype=output.dtype).reshape(output.shape).sin()
        grads = torch.autograd.grad(
            (output * weights).sum(), s, retain_graph=True, allow_unused=True
        )
        reached = [g is not None and bool((g != 0).any()) for g in grads]
        assert reached == [source >= level for source in range(3)]


# Sizes


def test_an_int_is_a_square():
    maps = random_maps([(2, 2, 6, 6), (2, 2, 3, 3)])
    options = dict(in_channels=[2, 2], out_channels=[2, 2], mid_channels=2)
    as_int = ReviewFusion(**options, out_sizes=[4, 2])
    as_pair = ReviewFusion(**options, out_sizes=[[4, 4], [2, 2]])
    for fine, deep in (randomised(as_int)(maps), randomised(as_pair)(maps)):
        assert fine.shape == (2, 2, 4, 4)
        assert deep.shape == (2, 2, 2, 2)
    torch.testing.assert_close(as_int.eval()(maps), as_pair.eval()(maps))


def test_sizes_of_the_official_module_are_ignored():
    maps = random_maps([(2, 2, 6, 6), (2, 2, 3, 3)])
    plain, given = (randomised(ReviewFusion([2, 2], [2, 2], 2, sizes)) for sizes in (None, [9, 1]))
    torch.testing.assert_close(given(maps), plain(maps), rtol=0, atol=0)


def test_a_pooled_feature_is_a_map_of_one_pixel():
    fusion = randomised(ReviewFusion([2, 3], [2, 3], 2)).eval()
    fine, pooled = random_maps([(2, 2, 4, 4), (2, 3)])
    as_map = fusion([fine, pooled[..., None, None]])
    torch.testing.assert_close(fusion([fine, pooled]), as_map, rtol=0, atol=0)


def test_half_precision_runs_under_autocast(device):
    fusion = ReviewFusion([3, 4], [5, 6], 2).eval().to(device)
    s = [torch.randn(2, 3, 8, 8, device=device), torch.randn(2, 4, 4, 4, device=device)]
    expected = fusion(s)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        found = fusion([x.bfloat16() for x in s])
    torch.testing.assert_close([x.float() for x in found], expected, rtol=0.1, atol=0.1)


# Errors


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(out_channels=[4]), "in_channels of 2 levels and out_channels of 1"),
        (dict(out_sizes=[4]), "in_channels of 2 levels and out_sizes of 1"),
        (dict(in_channels=[], out_channels=[]), "at least one level"),
    ],
)
def test_lists_of_other_lengths_are_an_error(options, message):
    defaults = dict(in_channels=[4, 4], out_channels=[4, 4], mid_channels=2)
    with pytest.raises(ValueError, match=message):
        ReviewFusion(**{**defaults, **options})


@pytest.mark.parametrize(
    "shapes, message",
    [
        ([(2, 3, 4, 4)], "built for 2 student levels, got 1"),
        ([(2, 3, 4, 4), (2, 4, 2, 2), (2, 4, 1, 1)], "built for 2 student levels, got 3"),
        (
            [(2, 3, 4, 4), (2, 3, 2, 2)],
            r"level 1 expected a student map \[N, 4, H, W\], got \[2, 3, 2, 2\]",
        ),
        (
            [(2, 4, 4, 4), (2, 4, 2, 2)],
            r"level 0 expected a student map \[N, 3, H, W\], got \[2, 4, 4, 4\]",
        ),
        ([(3, 4, 4), (2, 4, 2, 2)], r"level 0 expected .*, got \[3, 4, 4\]"),
    ],
)
def test_maps_that_do_not_fit_are_an_error(shapes, message):
    fusion = ReviewFusion([3, 4], [5, 6], 2)
    with pytest.raises(ValueError, match=message):
        fusion([torch.zeros(shape) for shape in shapes])


def test_a_single_image_has_a_pooled_level():
    """As the last batch of an epoch may have."""
    fusion = ReviewFusion([4, 8], [4, 8], 8).train()
    before = {key: value.clone() for key, value in fusion.state_dict().items()}
    outputs = fusion([torch.randn(1, 4, 2, 2), torch.randn(1, 8)])
    assert [tuple(output.shape) for output in outputs] == [(1, 4, 2, 2), (1, 8, 1, 1)]
    assert all(output.isfinite().all() for output in outputs)
    sum(output.sum() for output in outputs).backward()
    assert all(p.grad is not None for p in fusion.parameters())
    after = fusion.state_dict()
    deepest = [key for key in before if key.startswith("abfs.0") and "running" in key]
    assert deepest and all(torch.equal(before[key], after[key]) for key in deepest)


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_recomputed_maps_change_nothing(train, device):
    def run(recompute: bool) -> tuple:
        fusion = ReviewFusion([6, 5, 4], [3, 4, 5], 8, recompute=recompute)
        fusion = randomised(fusion).train(train).to(device)
        maps = random_maps([(2, 6, 8, 8), (2, 5, 4, 4), (2, 4, 2, 2)])
        maps = [x.to(device).requires_grad_() for x in maps]
        outputs = fusion(maps)
        sum(x.square().sum() for x in outputs).backward()
        gradients = [x.grad for x in [*maps, *fusion.parameters()]]
        return outputs, gradients, list(fusion.state_dict().values())

    for kept, recomputed in zip(run(False), run(True)):
        for a, b in zip(kept, recomputed):
            # cuDNN adds the gradients of a convolution in any order.
            torch.testing.assert_close(a, b, rtol=1e-9 * (device.type == "cuda"), atol=0)


def test_recomputing_keeps_less_for_the_backward_pass():
    def kept(recompute: bool) -> int:
        fusion = ReviewFusion([8, 8], [8, 8], 8, recompute=recompute)
        maps = [torch.randn(1, 8, s, s, requires_grad=True) for s in (32, 16)]
        sizes: dict[int, int] = {}

        def pack(x: Tensor) -> Tensor:
            sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            outputs = fusion(maps)
        assert all(output.requires_grad for output in outputs)
        return sum(sizes.values())

    assert kept(True) < 0.5 * kept(False)


@pytest.mark.parametrize("channels", [4, 6])
def test_a_residual_fusion_starts_as_the_students_own_map(channels):
    fusion = ReviewFusion([4, 4], [channels] * 2, 8, residual=True)
    maps = [torch.randn(2, 4, 6, 6), torch.randn(2, 4, 3, 3)]
    own = [abf.skip(x) for abf, x in zip(reversed(fusion.abfs), maps)]
    outputs = fusion(maps)
    assert all(torch.equal(a, b) for a, b in zip(outputs, own))
    # What is added to it is learnt.
    sum(x.square().sum() for x in outputs).backward()
    assert all(abf.conv2[1].weight.grad.abs().sum() > 0 for abf in fusion.abfs)
