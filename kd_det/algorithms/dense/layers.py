"""The layers of a dense head that recorders name, found on the head itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kd_det.algorithms.wiring import WiringError
from kd_det.errors import UnsupportedTypeError

# Names of the convolutions of each branch, and its place among a head's outputs.
BRANCHES = {
    "cls": (("cls_convs", "multi_level_cls_convs"), 0),
    "box": (("reg_convs", "multi_level_reg_convs"), 1),
}
# Pixels of the finest level of a head that is run on random maps.
SIDE = 16
# And of the deepest at least: a compiled mmcv's deformable convolutions refuse less than a kernel.
LEAST_SIDE = 3
EXAMPLES = "RetinaNet, FCOS, ATSS, GFL, RTMDet and YOLOX"


class Layer(NamedTuple):
    """A call of a layer: its name in the detector, and which of its calls it is."""

    source: str
    call: int


def pyramid_recorder(layers: Sequence[Layer], inputs: bool = False) -> dict[str, Any]:
    """Config of a ``kd_det.Pyramid`` of the outputs of these layers, or of their first inputs."""
    kind = dict(type="ModuleInputs", data_idx=0) if inputs else dict(type="ModuleOutputs")
    return dict(
        type="kd_det.Pyramid",
        levels=[dict(kind, source=layer.source, record_idx=layer.call) for layer in layers],
    )


@torch.no_grad()
def class_layers(head: Any, source: str = "bbox_head") -> list[Layer]:
    """Find the layer that predicts the class map of each level.

    Its outputs are the class maps, and its inputs the last features of the class branch. The head
    runs on random maps; also on the device ``meta``.

    Args:
        head: A dense head of mmdet.
        source: Its name in the detector.

    Raises:
        TypeError: If class maps are no outputs of layers as they are.
    """
    calls: list[tuple[str, Tensor]] = []
    leaves = {name: layer for name, layer in head.named_modules() if not list(layer.children())}
    handles = [
        layer.register_forward_hook(lambda _, __, out, name=name: calls.append((name, out)))
        for name, layer in leaves.items()
    ]
    try:
        maps = head.forward(random_maps(head))[0]
    finally:
        for handle in handles:
            handle.remove()
    found = []
    for x in maps:
        place = next((i for i, (_, out) in enumerate(calls) if out is x), None)
        if place is None:
            raise UnsupportedTypeError(
                f"the class maps of a {type(head).__name__} are no outputs of its layers as they "
                f"are, as those of {EXAMPLES} are"
            )
        name = calls[place][0]
        earlier = sum(other == name for other, _ in calls[:place])
        found.append(Layer(f"{source}.{name}", earlier))
    return found


def depth_of(head: Any, branch: str) -> int:
    """Count the convolutions of a branch, ``'cls'`` or ``'box'``.

    Raises:
        TypeError: If the head has no such branches.
    """
    return len(stacks(head, branch)[1][0])


def branch_layers(head: Any, branch: str, depth: int, source: str = "bbox_head") -> list[Layer]:
    """Name the layer of each level whose outputs are a branch's maps after ``depth`` convolutions.

    Raises:
        TypeError: If the head has no such branches.
        kd_det.algorithms.WiringError: If ``depth`` is not one of its convolutions.
    """
    name, per_level = stacks(head, branch)
    check_depth(head, branch, depth, least=1)
    if len(per_level) == 1:
        return [Layer(f"{source}.{name}.{depth - 1}", call) for call in range(num_levels(head))]
    return [Layer(f"{source}.{name}.{level}.{depth - 1}", 0) for level in range(len(per_level))]


def stacks(head: Any, branch: str) -> tuple[str, list[list[nn.Module]]]:
    """Find a branch's attribute and its convolutions: of each level, or one stack for all.

    Raises:
        TypeError: If the head has no such branches.
    """
    names, _ = BRANCHES[branch]
    name = next((x for x in names if isinstance(getattr(head, x, None), nn.ModuleList)), None)
    if name is None or not num_levels(head):
        raise UnsupportedTypeError(
            "expected a head with branches cls_convs and reg_convs of stacked convolutions, as "
            f"{EXAMPLES} have, found a {type(head).__name__}"
        )
    convs = getattr(head, name)
    kinds = (nn.ModuleList, nn.Sequential)
    per_level = len(convs) == num_levels(head) and all(isinstance(x, kinds) for x in convs)
    return name, [list(x) for x in convs] if per_level else [list(convs)]


def check_depth(head: Any, branch: str, depth: int, least: int = 0) -> None:
    """Raise :class:`kd_det.algorithms.WiringError` unless a branch is as deep."""
    name, found = stacks(head, branch)
    if not least <= depth <= len(found[0]):
        raise WiringError(
            f"a {type(head).__name__} has {len(found[0])} convolutions in {name}, found depth "
            f"{depth}"
        )


def num_levels(head: Any) -> int:
    """Count the levels of a dense head, 0 for another."""
    return len(getattr(getattr(head, "prior_generator", None), "strides", ()))


def random_maps(head: Any) -> list[Tensor]:
    """Make a small random pyramid ``[1, C, H, W]`` for a head, without touching the RNG's state."""
    device = next(head.parameters()).device
    with torch.random.fork_rng(devices=[]):
        sides = [max(SIDE >> level, LEAST_SIDE) for level in range(num_levels(head))]
        return [torch.rand(1, head.in_channels, side, side).to(device) for side in sides]
