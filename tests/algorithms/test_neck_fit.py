"""Least squares of an FPN's lateral convolutions to a teacher's."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from mmdet.models.necks import FPN, PAFPN
from torch import Tensor, nn

from kd_det.algorithms import WiringError
from kd_det.algorithms.neck_fit import NeckFit, require_alike


class Pyramid(nn.Module):
    """A backbone of random filters, with a detector's attributes."""

    def __init__(self, channels: list[int], neck: nn.Module, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.filters = nn.ModuleList(
            nn.Conv2d(3, size, 3, 2**level, padding=1) for level, size in enumerate(channels, 1)
        )
        self.neck = neck

    def backbone(self, images: Tensor) -> list[Tensor]:
        return [layer(images).relu() for layer in self.filters]


def pyramid(channels: list[int], seed: int = 0, kind: Any = FPN, **options: Any) -> Pyramid:
    torch.manual_seed(seed)
    settings: dict[str, Any] = dict(out_channels=6, num_outs=len(channels) + 1, **options)
    neck = kind(in_channels=channels, **settings)
    for parameter in neck.parameters():
        nn.init.normal_(parameter)
    return Pyramid(channels, neck, seed)


def laterals(side: Pyramid, images: Tensor) -> list[Tensor]:
    maps = side.backbone(images)[side.neck.start_level :]
    return [layer(x) for layer, x in zip(side.neck.lateral_convs, maps)]


@pytest.fixture
def images() -> Tensor:
    return torch.randn(8, 3, 32, 48, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def teacher() -> Pyramid:
    return pyramid([5, 7, 9], seed=1)


def fit(student: Pyramid, teacher: Pyramid, *batches: Tensor) -> list[float]:
    fitting = NeckFit(student, teacher)
    for batch in batches:
        fitting.update(batch, batch)
    fitting.all_reduce()
    return fitting.solve()


@pytest.mark.parametrize("start_level", [0, 1])
def test_with_the_teachers_backbone_its_layers_are_found(images, start_level):
    teacher = pyramid([5, 7, 9], seed=1, start_level=start_level)
    student = copy.deepcopy(teacher)
    for layer in student.neck.lateral_convs:
        nn.init.normal_(layer.conv.weight)
        nn.init.zeros_(layer.conv.bias)
    shares = fit(student, teacher, images)
    assert len(shares) == 3 - start_level and min(shares) > 0.9999
    for found, wanted in zip(laterals(student, images), laterals(teacher, images)):
        assert (found - wanted).abs().max() <= 2e-3 * wanted.abs().max()


def test_nothing_nearby_is_nearer(images, teacher):
    student = pyramid([4, 4, 4], seed=2)
    shares = fit(student, teacher, images)
    wanted = laterals(teacher, images)

    def error(level: int) -> float:
        return float((laterals(student, images)[level] - wanted[level]).double().square().mean())

    for level, layer in enumerate(student.neck.lateral_convs):
        least = error(level)
        variance = wanted[level].double().var(dim=(0, 2, 3), correction=0).mean()
        assert shares[level] == pytest.approx(1 - least / float(variance), abs=1e-3)
        for parameter in (layer.conv.weight, layer.conv.bias):
            for step in (0.01, -0.01):
                for index in range(0, parameter.numel(), 5):
                    with torch.no_grad():
                        parameter.view(-1)[index] += step
                        assert error(level) > least * (1 - 1e-6)
                        parameter.view(-1)[index] -= step


def test_batches_add_up_and_the_rest_stays(images, teacher):
    students = [pyramid([4, 6, 8], seed=2) for _ in range(2)]
    before = copy.deepcopy(students[0].state_dict())
    assert fit(students[0], teacher, images) == pytest.approx(
        fit(students[1], teacher, images[:3], images[3:])
    )
    for name, value in students[0].state_dict().items():
        assert torch.allclose(value, students[1].state_dict()[name], rtol=1e-5, atol=1e-6)
        assert torch.equal(value, before[name]) == ("lateral_convs" not in name)


def test_maps_that_say_nothing_give_finite_weights(images, teacher):
    student = pyramid([4, 6, 8], seed=2)
    for layer in student.filters:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    shares = fit(student, teacher, images)
    assert max(map(abs, shares)) < 1e-3
    assert all(parameter.isfinite().all() for parameter in student.neck.parameters())


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (dict(channels=[4, 6, 8], kind=PAFPN), "neck is a PAFPN, the teacher's a FPN"),
        (dict(channels=[4, 6, 8, 8]), "has backbone_end_level 4, the teacher's 3"),
        (dict(channels=[4, 6, 8], start_level=1), "has start_level 1, the teacher's 0"),
        (
            dict(channels=[4, 6, 8], norm_cfg=dict(type="BN")),
            "the student's lateral convolutions have a normalisation",
        ),
    ],
)
def test_necks_of_other_kinds_are_refused(teacher, other, message):
    with pytest.raises(WiringError, match=message):
        require_alike(pyramid(**other), teacher)


def test_a_neck_behind_other_layers_is_refused(teacher):
    student = pyramid([4, 6, 8])
    student.neck.fpn_convs[1].conv = nn.Conv2d(6, 6, 1)
    expected = r"neck.fpn_convs.1.conv.weight is \[6, 6, 1, 1\] in the student and \[6, 6, 3, 3\]"
    with pytest.raises(WiringError, match=expected):
        require_alike(student, teacher)
    student.neck = nn.Identity()
    with pytest.raises(WiringError, match="the student's neck is Identity, not mmdet's FPN"):
        NeckFit(student, teacher)


def test_other_strides_are_refused(images, teacher):
    student = pyramid([4, 6, 8])
    with pytest.raises(WiringError, match=r"a map of \[8, 12\] where the teacher's has one of"):
        NeckFit(student, teacher).update(images[..., :16, :24], images)
