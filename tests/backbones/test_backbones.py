"""Backbones have the shapes, parameters and names that published teachers were saved with."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import kd_det  # noqa: F401  (patches the stack before mmpretrain is imported)
from kd_det.backbones import CifarResNet, CifarWideResNet, MobileNetV1
from kd_det.backbones.mdistiller import from_mdistiller
from kd_det.recipes import load_named

X4 = dict(channels=(32, 64, 128, 256))


def number(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def build(type: str, **options: object) -> nn.Module:
    from small_cls import build_classifier

    return build_classifier(dict(type=type, **options))


# Parameters with a head of 100 classes, as many as mdistiller's models have.
@pytest.mark.parametrize(
    "type, options, shape, with_head",
    [
        ("kd_det.CifarResNet", dict(depth=20), (64, 8), 278_324),
        ("kd_det.CifarResNet", dict(depth=56), (64, 8), 861_620),
        ("kd_det.CifarResNet", dict(depth=8, **X4), (256, 8), 1_233_540),
        ("kd_det.CifarResNet", dict(depth=32, **X4), (256, 8), 7_433_860),
        ("kd_det.CifarWideResNet", dict(depth=40), (64, 8), 569_780),
        ("kd_det.CifarWideResNet", dict(depth=40, widen_factor=2), (128, 8), 2_255_156),
        ("mmpretrain.ResNet_CIFAR", dict(depth=50), (2048, 4), 23_705_252),
        ("kd_det.CifarShuffleNetV2", dict(), (1024, 4), 1_355_528),
        # Not mdistiller's, as their docstrings say: 812 836 and 949 258 there.
        ("kd_det.CifarMobileNetV2", dict(), (1280, 2), 815_780),
        ("kd_det.CifarShuffleNetV1", dict(), (960, 4), 1_000_252),
    ],
)
def test_size(type, options, shape, with_head):
    model = build(type, **options)
    channels, side = shape
    (output,) = model(torch.randn(2, 3, 32, 32))
    assert output.shape == (2, channels, side, side)
    assert number(model) + 100 * channels + 100 == with_head


def test_mobilenet_v1_has_the_papers_parameters():
    model = MobileNetV1()
    # 4.2 million, table 8 of the paper.
    assert number(model) + 1024 * 1000 + 1000 == 4_231_976
    assert model(torch.randn(1, 3, 64, 64))[0].shape == (1, 1024, 2, 2)


def stages(model: nn.Module, names: list[str], side: int) -> list[torch.Tensor]:
    outputs: list[torch.Tensor] = []
    for name in names:
        model.get_submodule(name).register_forward_hook(lambda m, i, o: outputs.append(o))
    model(torch.randn(2, 3, side, side))
    return outputs


@pytest.mark.parametrize(
    "model, names, shapes",
    [
        (
            CifarResNet(8, **X4),
            ["layer1", "layer2", "layer3"],
            [(64, 32, 32), (128, 16, 16), (256, 8, 8)],
        ),
        (
            CifarWideResNet(10, 2),
            ["block2.layer.0.bn1", "block3.layer.0.bn1", "bn1"],
            [(32, 32, 32), (64, 16, 16), (128, 8, 8)],
        ),
        (
            MobileNetV1(),
            ["stage1", "stage2", "stage3", "stage4"],
            [(128, 8, 8), (256, 4, 4), (512, 2, 2), (1024, 1, 1)],
        ),
    ],
)
def test_stages_are_before_their_relu(model, names, shapes):
    outputs = stages(model, names, 32)
    assert [tuple(o.shape[1:]) for o in outputs] == shapes
    assert all((o < 0).any() for o in outputs)


def test_stages_after_relu_are_those_before_it_cut_off():
    model = CifarResNet(8, out_indices=(0, 1, 2)).eval()
    before = []
    for name in ("layer1", "layer2", "layer3"):
        model.get_submodule(name).register_forward_hook(lambda m, i, o: before.append(o))
    after = model(torch.randn(2, 3, 32, 32))
    assert all(torch.equal(b.relu(), a) for b, a in zip(before, after))


class PublishedBlock(nn.Module):
    """A basic block as it is usually written: the ReLU at its end."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b = self.block
        shortcut = x if b.downsample is None else b.downsample(x)
        x = b.bn1(b.conv1(x)).relu()
        return (b.bn2(b.conv2(x)) + shortcut).relu()


def test_the_place_of_the_relu_changes_nothing():
    model = CifarResNet(14).eval()
    x = torch.randn(2, 3, 32, 32)
    y = model.bn1(model.conv1(x)).relu()
    for layer in (model.layer1, model.layer2, model.layer3):
        for block in layer:
            y = PublishedBlock(block)(y)
    assert torch.equal(model(x)[0], y)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: CifarResNet(18), r"6n \+ 2.*depth=18"),
        (lambda: CifarResNet(20, (16, 32)), r"three stages.*\(16, 32\)"),
        (lambda: CifarWideResNet(40, 0), "widen_factor=0"),
        (lambda: CifarWideResNet(41), r"6n \+ 4.*depth=41"),
    ],
)
def test_impossible_sizes_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def published_keys(kind: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a published state dict, written down from mdistiller's modules."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, out: int, inner: int, kernel: int) -> None:
        shapes[f"{name}.weight"] = (out, inner, kernel, kernel)

    def norm(name: str, channels: int) -> None:
        for entry in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{entry}"] = (channels,)
        shapes[f"{name}.num_batches_tracked"] = ()

    def linear(name: str, out: int, inner: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (out, inner), (out,)

    if kind == "resnet56":
        conv("conv1", 16, 3, 3), norm("bn1", 16)
        before = 16
        for layer, width in ((1, 16), (2, 32), (3, 64)):
            for block in range(9):
                at = f"layer{layer}.{block}"
                conv(f"{at}.conv1", width, before, 3), norm(f"{at}.bn1", width)
                conv(f"{at}.conv2", width, width, 3), norm(f"{at}.bn2", width)
                if before != width:
                    conv(f"{at}.downsample.0", width, before, 1), norm(f"{at}.downsample.1", width)
                before = width
        linear("fc", 100, 64)
    elif kind == "wrn_40_2":
        conv("conv1", 16, 3, 3)
        before = 16
        for stage, width in ((1, 32), (2, 64), (3, 128)):
            for block in range(6):
                at = f"block{stage}.layer.{block}"
                norm(f"{at}.bn1", before), conv(f"{at}.conv1", width, before, 3)
                norm(f"{at}.bn2", width), conv(f"{at}.conv2", width, width, 3)
                if before != width:
                    conv(f"{at}.convShortcut", width, before, 1)
                before = width
        norm("bn1", 128), linear("fc", 100, 128)
    else:
        conv("conv1", 64, 3, 3), norm("bn1", 64)
        before = 64
        for layer, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), start=1):
            for block in range(blocks):
                at = f"layer{layer}.{block}"
                conv(f"{at}.conv1", width, before, 1), norm(f"{at}.bn1", width)
                conv(f"{at}.conv2", width, width, 3), norm(f"{at}.bn2", width)
                conv(f"{at}.conv3", 4 * width, width, 1), norm(f"{at}.bn3", 4 * width)
                if block == 0:
                    conv(f"{at}.shortcut.0", 4 * width, before, 1)
                    norm(f"{at}.shortcut.1", 4 * width)
                before = 4 * width
        linear("linear", 100, 2048)
    return shapes


@pytest.mark.parametrize(
    "kind, pair",
    [
        ("resnet56", "cifar100_r56_r20"),
        ("wrn_40_2", "cifar100_wrn40x2_wrn40x1"),
        ("ResNet50", "cifar100_r50_mv2"),
    ],
)
def test_published_teachers_load(kind, pair):
    from small_cls import CLS, build_classifier

    teacher = build_classifier(load_named(CLS / f"{pair}_kd.py").model.teacher)
    shapes = published_keys(kind)
    state = {f"module.{key}": torch.randn(shape) for key, shape in shapes.items()}
    teacher.load_state_dict(from_mdistiller(state), strict=True)


def test_weights_of_another_model_are_refused():
    with pytest.raises(ValueError, match=r"features\.0\.weight"):
        from_mdistiller({"features.0.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="found no entries"):
        from_mdistiller({})
