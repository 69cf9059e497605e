"""CrossKD: the student's features run on through the rest of the teacher's head."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kd_det.algorithms.dense.boxes import decode_boxes
from kd_det.algorithms.dense.layers import (
    BRANCHES,
    EXAMPLES,
    LEAST_SIDE,
    check_depth,
    num_levels,
    random_maps,
    stacks,
)
from kd_det.algorithms.wiring import WiringError, require_module
from kd_det.errors import InvalidInputError, UnsupportedTypeError
from kd_det.registry import MODELS

# Norms refuse a single value.
SMALL = (LEAST_SIDE, LEAST_SIDE)


@MODELS.register_module()
class CrossHead(nn.Module):
    """Connector: student maps at some depth of a head's branch -> what the teacher's head predicts.

    The teacher's convolutions from ``depth`` on, and its own prediction layers and scales, take the
    student's maps. They are frozen and in eval mode, and the gradient passes through them to the
    student. What comes out is in the form of the teacher's own predictions, ``bbox_head``'s
    outputs 0 (class maps) and 1 (boxes in the head's own form):

    .. code-block:: python

        student_recorders=dict(cls_feats=dict(type="kd_det.Pyramid", levels=[
            dict(type="ModuleOutputs", source="bbox_head.cls_convs.2", record_idx=level)
            for level in range(5)])),
        teacher_recorders=dict(head=dict(type="ModuleOutputs", source="bbox_head")),
        connectors=dict(cross_cls=dict(type="kd_det.CrossHead", branch="cls", depth=3)),
        distill_losses=dict(loss_cross_cls=dict(type="kd_det.BinaryKDLoss")),
        loss_forward_mappings=dict(loss_cross_cls=dict(
            s_logits=dict(recorder="cls_feats", from_student=True, connector="cross_cls"),
            t_logits=dict(recorder="head", from_student=False, data_idx=0))),

    Where the student's maps have other channels than the teacher's at this depth, a
    ``kd_det.PyramidConnector`` goes before it: a connector may be a list of them. With ``depth=0``
    the student's pyramid runs through all of the teacher's head, whatever the student's own head
    is.

    It has no parameters; the algorithm gives it the teacher when it is built.

    Args:
        branch: ``'cls'`` or ``'box'``.
        depth: How many of the teacher's convolutions the student's maps stand for.
        levels: Indices of the teacher's levels that the maps are of; None for all.
        decode: Whether to decode boxes, as ``kd_det.Boxes`` does.
        source: Name of the teacher's head.

    Raises:
        ValueError: For an unknown branch, a negative depth, or ``decode`` of classes.

    Source: "CrossKD: Cross-Head Knowledge Distillation for Object Detection", arXiv 2306.11369,
    from the paper alone. Of GFL's four convolutions the student's maps stand for three, as
    published. There all positions count the same. The configs here divide classes by the number of
    positives and weight boxes by the teacher's scores, since boxes of background are arbitrary;
    ATSS's centerness, which the paper compares too, is left out.
    """

    def __init__(
        self,
        branch: str,
        depth: int,
        levels: Sequence[int] | None = None,
        decode: bool = False,
        source: str = "bbox_head",
    ) -> None:
        super().__init__()
        if branch not in BRANCHES or depth < 0 or (decode and branch != "box"):
            raise InvalidInputError(
                f"CrossHead needs branch one of {sorted(BRANCHES)}, depth >= 0, and decode with "
                f"branch 'box' alone, got branch={branch!r}, depth={depth}, decode={decode}"
            )
        self.branch = branch
        self.depth = depth
        self.levels = levels
        self.decode = decode
        self.source = source
        self._rest: _RestOfHead | None = None

    def set_teacher(self, teacher: nn.Module) -> None:
        """Take the teacher's head.

        Raises:
            kd_det.algorithms.WiringError: If there is no such head, or it has fewer convolutions.
            TypeError: If its forward pass is not one of branches that stand side by side.
        """
        require_module(teacher, self.source, "teacher", "CrossHead has source")
        head = teacher.get_submodule(self.source)
        self._rest = _RestOfHead(head, self.branch, self.depth)

    def forward(self, s_feats: Sequence[Tensor] | Tensor) -> list[Tensor]:
        """Predictions of the teacher's head, for each level, of student maps ``[N, C, H, W]``.

        Raises:
            ValueError: If the number of levels or the channels are not the teacher's.
        """
        if self._rest is None:
            raise WiringError("CrossHead has no teacher: kd_det.TeacherDistill gives it one")
        maps = [s_feats] if isinstance(s_feats, Tensor) else list(s_feats)
        levels = range(self._rest.num_levels) if self.levels is None else self.levels
        found = self._rest.run(dict(zip(levels, self._check_maps(maps, levels))))
        if self.decode:
            found = decode_boxes(self._rest.head, found)
        return [found[level] for level in levels]

    def _check_maps(self, maps: list[Tensor], levels: Sequence[int]) -> list[Tensor]:
        assert self._rest is not None
        channels = self._rest.channels[self.branch]
        found = [x.shape[1] for x in maps]
        if found != [channels] * len(levels):
            raise InvalidInputError(
                f"CrossHead(branch={self.branch!r}, depth={self.depth}): the teacher's head takes "
                f"maps of {channels} channels there, for {len(levels)} levels; found student maps "
                f"of {found} channels. Where only channels differ, put a kd_det.PyramidConnector "
                "before it"
            )
        return maps

    def extra_repr(self) -> str:
        return f"branch={self.branch!r}, depth={self.depth}, decode={self.decode}"


class _Given(nn.Module):
    """Stands for the first layers of a branch: what they would put out is given beforehand."""

    def __init__(self) -> None:
        super().__init__()
        self.maps: deque[Tensor] = deque()

    def forward(self, x: Tensor) -> Tensor:
        return self.maps.popleft()


class _RestOfHead:
    """A head from some depth on: a shallow copy, which shares all of its layers.

    No module, so that an algorithm that owns a connector does not own the teacher's head.

    Attributes:
        channels: Channels of the maps that each branch takes at this depth.
    """

    def __init__(self, head: Any, branch: str, depth: int) -> None:
        self.head = head
        self.output = BRANCHES[branch][1]
        self.branch = branch
        self.num_levels = num_levels(head)
        self._given = {name: _Given() for name in BRANCHES}
        self._before: dict[str, list[nn.Module]] = {}
        self._rest = self._cut(depth)
        self.channels: dict[str, int] = {}
        self._check(depth)

    def __deepcopy__(self, memo: dict[int, Any]) -> _RestOfHead:
        """Share the teacher's head with copies of the connector."""
        return self

    def _cut(self, depth: int) -> Any:
        """Copy the head, with :class:`_Given` in place of the first layers of its branches."""
        kind: Any = type(self.head)
        rest = kind.__new__(kind)
        rest.__dict__.update(self.head.__dict__)
        rest._modules = dict(self.head._modules)
        for branch in BRANCHES:
            name, found = stacks(self.head, branch)
            check_depth(self.head, branch, depth)
            self._before[branch] = [stack[depth - 1] for stack in found] if depth else []
            kept = [[self._given[branch], *stack[depth:]] for stack in found]
            # One stack for all levels, or one for each, which is called or whose layers are.
            kind = nn.ModuleList if len(kept) == 1 else type(self.head._modules[name][0])
            cut = [nn.Sequential(*x) if kind is nn.Sequential else nn.ModuleList(x) for x in kept]
            rest._modules[name] = cut[0] if len(cut) == 1 else nn.ModuleList(cut)
        return rest

    def run(self, maps: Mapping[int, Tensor]) -> list[Tensor]:
        """Predictions of all levels from the maps of some; those of the others are of no use.

        There, and in the other branch, layers run on a small map of zeros.
        """
        like = next(iter(maps.values()))
        levels = range(self.num_levels)
        try:
            for branch, given in self._given.items():
                zeros = like.new_zeros(1, self.channels[branch], *SMALL)
                own = maps if branch == self.branch else {}
                given.maps.extend(own.get(level, zeros) for level in levels)
            # Not called as a module: recorders of the head are for its own forward pass.
            unread = [like.new_zeros(1, self.head.in_channels, *SMALL)] * self.num_levels
            return list(self._rest.forward(unread)[self.output])
        finally:
            for given in self._given.values():
                given.maps.clear()

    @torch.no_grad()
    def _check(self, depth: int) -> None:
        """Compare with the head itself on random maps.

        Raises:
            UnsupportedTypeError: If they differ: the branches of this head are not apart.
        """
        try:
            same = self._is_same()
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
            raise UnsupportedTypeError(self._not_apart(depth)) from error
        if not same:
            raise UnsupportedTypeError(self._not_apart(depth))

    def _is_same(self) -> bool:
        """Compare with the head itself, and set :attr:`channels`."""
        feats = random_maps(self.head)
        seen: dict[str, list[Tensor]] = {branch: [] for branch in BRANCHES}
        handles = [
            layer.register_forward_hook(lambda _, __, out, to=seen[branch]: to.append(out))
            for branch, layers in self._before.items()
            for layer in layers
        ]
        try:
            expected = self.head.forward(feats)[self.output]
        finally:
            for handle in handles:
                handle.remove()
        maps = {branch: found or feats for branch, found in seen.items()}
        self.channels = {branch: found[0].shape[1] for branch, found in maps.items()}
        found = self.run(dict(enumerate(maps[self.branch])))
        return all(map(_close, found, expected))

    def _not_apart(self, depth: int) -> str:
        return (
            f"CrossHead: what the teacher's {type(self.head).__name__} predicts as "
            f"{self.branch!r} does not follow from the maps of that branch at depth {depth} alone; "
            f"heads like those of {EXAMPLES} are supported"
        )


def _close(found: Tensor, expected: Tensor) -> bool:
    if found.shape != expected.shape:
        return False
    spread = (expected - expected.mean()).abs().max()
    return bool((found - expected).abs().max() <= 1e-4 * spread)
