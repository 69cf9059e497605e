"""The rest of a teacher's head, against its layers called one by one."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from small_dense import detector, levels_of
from small_heads import detector as two_stage
from torch import Tensor, nn

from kd_det.algorithms import CrossHead, WiringError
from kd_det.algorithms.dense import decode_boxes

HEADS = ["retinanet", "gfl", "fcos", "fcos_normed", "atss", "rtmdet", "yolox"]
WIDTH = 8


def teacher_of(name: str) -> Any:
    return detector(name, 1).requires_grad_(False).eval()


def maps_of(name: str, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sides = [8, 4, 2, 1, 1][: levels_of(name)]
    return [torch.randn(2, WIDTH, x, x, generator=generator).requires_grad_() for x in sides]


def cross(teacher: nn.Module, *args: Any, **options: Any) -> CrossHead:
    connector = CrossHead(*args, **options)
    connector.set_teacher(teacher)
    return connector


def slow(head: Any, name: str, branch: str, depth: int, maps: list[Tensor]) -> list[Tensor]:
    found = []
    for level, x in enumerate(maps):
        short = "cls" if branch == "cls" else "reg"
        if name == "yolox":
            convs = getattr(head, f"multi_level_{short}_convs")[level]
            last = getattr(head, f"multi_level_conv_{short}")[level]
        elif name == "rtmdet":
            convs = getattr(head, f"{short}_convs")[level]
            last = getattr(head, f"rtm_{short}")[level]
        else:
            convs = getattr(head, f"{short}_convs")
            prefix = dict(retinanet="retina", fcos="conv", fcos_normed="conv").get(name, name)
            last = getattr(head, f"{prefix}_{short}")
        for conv in list(convs)[depth:]:
            x = conv(x)
        x = last(x)
        stride = (8, 16, 32, 64, 128)[level]
        if branch == "box" and name in ("gfl", "atss", "fcos", "fcos_normed"):
            x = head.scales[level](x)
        if branch == "box" and name == "fcos":
            x = x.exp()
        if branch == "box" and name == "fcos_normed":
            x = x.clamp(min=0) * stride
        if branch == "box" and name == "rtmdet":
            x = x * stride
        found.append(x)
    return found


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("branch", ["cls", "box"])
@pytest.mark.parametrize("name", HEADS)
def test_equals_its_layers_one_by_one(name, branch, depth):
    teacher, maps = teacher_of(name), maps_of(name)
    found = cross(teacher, branch, depth)(maps)
    expected = slow(teacher.bbox_head, name, branch, depth, maps)
    torch.testing.assert_close(found, expected)
    assert all(x.abs().sum() > 0 for x in found)
    grads, expected_grads = (
        torch.autograd.grad(sum((x**2).sum() for x in side), maps) for side in (found, expected)
    )
    torch.testing.assert_close(grads, expected_grads)
    assert all(p.grad is None for p in teacher.parameters())


def test_decodes_boxes():
    teacher, maps = teacher_of("gfl"), maps_of("gfl")
    expected = decode_boxes(teacher.bbox_head, cross(teacher, "box", 1)(maps))
    torch.testing.assert_close(cross(teacher, "box", 1, decode=True)(maps), expected)
    # Also of some levels.
    some = cross(teacher, "box", 1, decode=True, levels=[1, 3])([maps[1], maps[3]])
    torch.testing.assert_close(some, [expected[1], expected[3]])


def test_takes_some_levels():
    teacher, maps = teacher_of("fcos_normed"), maps_of("fcos_normed")
    expected = cross(teacher, "box", 1)(maps)
    found = cross(teacher, "box", 1, levels=[0, 2])([maps[0], maps[2]])
    torch.testing.assert_close(found, [expected[0], expected[2]])


def test_owns_nothing_of_the_teacher_and_shares_it_with_copies():
    teacher, maps = teacher_of("atss"), maps_of("atss")
    connector = cross(teacher, "cls", 1)
    assert not list(connector.parameters()) and not connector.state_dict()
    copied = copy.deepcopy(connector)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.mul_(0.5)
    expected = slow(teacher.bbox_head, "atss", "cls", 1, maps)
    torch.testing.assert_close(connector(maps), expected)
    torch.testing.assert_close(copied(maps), expected)
    teacher.double()  # as the algorithm moves it
    assert connector([x.double() for x in maps])[0].dtype == torch.float64


def test_leaves_the_head_as_it_is():
    teacher = teacher_of("rtmdet")
    names = [name for name, _ in teacher.named_modules()]
    calls = []
    teacher.bbox_head.register_forward_hook(lambda *_: calls.append(1))
    state = torch.get_rng_state()
    connector = cross(teacher, "cls", 1)
    connector(maps_of("rtmdet"))
    assert [name for name, _ in teacher.named_modules()] == names
    assert not calls  # of recorders of the head
    assert torch.equal(torch.get_rng_state(), state)


def test_works_after_an_error():
    teacher, maps = teacher_of("gfl"), maps_of("gfl")
    connector = cross(teacher, "cls", 1)
    expected = connector(maps)
    with pytest.raises(RuntimeError):
        connector([*maps[:4], maps[4].double()])
    torch.testing.assert_close(connector(maps), expected)


def test_what_does_not_fit_is_named():
    teacher, maps = teacher_of("gfl"), maps_of("gfl")
    with pytest.raises(ValueError, match=r"maps of 8 channels there, for 5 levels; .* \[8, 8, 8\]"):
        cross(teacher, "cls", 1)(maps[:3])
    with pytest.raises(ValueError, match=r"8 channels .* \[4, 4, 4, 4, 4\].*PyramidConnector"):
        cross(teacher, "cls", 1)([x[:, :4] for x in maps])
    with pytest.raises(WiringError, match="GFLHead has 2 convolutions in cls_convs, found depth 3"):
        cross(teacher, "cls", 3)
    with pytest.raises(WiringError, match="'bbox_head', but the teacher FasterRCNN"):
        cross(two_stage("faster"), "cls", 1)
    with pytest.raises(WiringError, match="has no teacher"):
        CrossHead("cls", 1)(maps)
    with pytest.raises(ValueError, match=r"branch one of .*got branch='classes'"):
        CrossHead("classes", 1)
    with pytest.raises(ValueError, match="decode"):
        CrossHead("cls", 1, decode=True)
    for name in ("tood", "yolov3"):
        with pytest.raises(TypeError, match=r"branches cls_convs and reg_convs .*RetinaNet, FCOS"):
            cross(teacher_of(name), "cls", 1)
    with pytest.raises(TypeError, match="VFNetHead predicts as 'cls' does not follow from"):
        cross(teacher_of("vfnet"), "cls", 1)
