"""Record the positions that a dense head's own assigner makes positive."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from mmengine.structures import InstanceData
from mmrazor.models.task_modules.recorder.base_recorder import BaseRecorder
from torch import Tensor, nn

from kd_det.algorithms.dense.layers import EXAMPLES
from kd_det.algorithms.wiring import require_module
from kd_det.errors import UnsupportedTypeError
from kd_det.losses.ld import valuable_region
from kd_det.registry import TASK_UTILS

# Heads of mmdet that have a loss_cls and do not hand it the labels of positions.
OTHERWISE = ("AutoAssignHead", "CenterNetUpdateHead", "FreeAnchorRetinaHead")
# Class indices below this are exact in every floating-point format of a class map.
DIGIT = 128


@TASK_UTILS.register_module()
class PositivesRecorder(BaseRecorder):
    """Positives of a dense head: ``dict(type='kd_det.Positives', source='bbox_head')`` in a config.

    A record has two items, each a list with an int64 tensor ``[M, 4]`` for each level: image, row,
    column and class.

    0. The positions that the head's own assigner made positive.
    1. The positions of the valuable localisation region (``region`` says how far it reaches),
       without those; empty if ``region`` is None.

    Heads hand logits and labels to their ``loss_cls`` in an order of their own: level by level,
    image by image, or positives alone. Which position a row of logits comes from is known to
    autograd: the gradient of a permutation is its inverse. Labels are sent back through it as
    gradients, and arrive on the class maps where they belong, whatever the head is.

    Args:
        source: Name of the head.
        region: ``gamma`` of :func:`kd_det.losses.valuable_region`.
        levels: Indices of the levels to keep, where a teacher has others; None for all.

    Raises:
        kd_det.algorithms.WiringError: If there is no such head.
        TypeError: If the head does not call a module ``loss_cls`` within ``loss_by_feat``, or has
            no anchors for the region.
    """

    def __init__(
        self, source: str, region: float | None = None, levels: Sequence[int] | None = None
    ) -> None:
        super().__init__(source)
        self.region = region
        self.levels = levels
        self._head: Any = None
        self._before: Callable | None = None
        self._handles: list[Any] = []
        self._calls: list[tuple[Tensor, Any]] | None = None
        self._seen_any = False

    def prepare_from_model(self, model: nn.Module | None = None) -> None:
        """Find the head."""
        assert model is not None
        require_module(model, self.source, "detector", "kd_det.Positives has source")
        head = model.get_submodule(self.source)
        if not hasattr(head, "loss_by_feat") or not _losses(head):
            raise UnsupportedTypeError(
                f"kd_det.Positives needs a dense head with loss_by_feat and a module loss_cls; "
                f"'{self.source}' is a {type(head).__name__}"
            )
        if any(kind.__name__ in OTHERWISE for kind in type(head).__mro__):
            raise UnsupportedTypeError(
                "kd_det.Positives needs a head whose loss_cls gets the label of each position, as "
                f"those of {EXAMPLES} do; '{self.source}' is a {type(head).__name__}"
            )
        self._head = head

    def _keep(self, module: nn.Module, inputs: tuple, output: Any) -> None:
        if self._calls is not None and len(inputs) > 1 and inputs[0].requires_grad:
            self._calls.append((inputs[0], inputs[1]))

    def __enter__(self) -> None:
        super().__enter__()
        self._handles = [x.register_forward_hook(self._keep) for x in _losses(self._head)]
        # An attribute of the head, not of its class, which teacher and student may share. Another
        # recorder may have put its own there.
        self._before = vars(self._head).get("loss_by_feat")
        self._head.loss_by_feat = self._watched(self._head.loss_by_feat)

    def __exit__(self, *exception: Any) -> None:
        while self._handles:
            self._handles.pop().remove()
        del self._head.loss_by_feat
        if self._before is not None:
            self._head.loss_by_feat = self._before

    def _watched(self, loss_by_feat: Callable) -> Callable:
        def call(maps: Sequence[Tensor], *args: Any, **kwargs: Any) -> Any:
            if isinstance(maps, Tensor) or any(x.dim() != 4 for x in maps):
                raise UnsupportedTypeError(
                    "kd_det.Positives needs a head with class maps [N, A * C, H, W] of each level; "
                    f"'{self.source}' is a {type(self._head).__name__}"
                )
            self._calls = []
            try:
                # Without gradients, as in a dry run, there is nothing to send labels back through.
                with torch.enable_grad():
                    maps = [x if x.requires_grad else x.detach().requires_grad_() for x in maps]
                    losses = loss_by_feat(maps, *args, **kwargs)
                objects = _objects([*args, *kwargs.values()])
                record = self._record(maps, objects)
                if self.levels is not None:
                    positives, region = ([side[x] for x in self.levels] for side in record)
                    record = positives, region
                self.data_buffer.append(record)
            finally:
                self._calls = None
            return losses

        return call

    @torch.no_grad()
    def _record(
        self, maps: Sequence[Tensor], objects: Sequence[InstanceData]
    ) -> tuple[list[Tensor], list[Tensor]]:
        assert self._calls is not None
        self._seen_any |= bool(self._calls)
        if not self._seen_any and any(map(len, objects)):
            raise UnsupportedTypeError(
                f"kd_det.Positives: the {type(self._head).__name__} '{self.source}' did not call "
                "its loss_cls for a batch with objects, so that nothing says which positions it "
                "makes positive"
            )
        found: list[list[Tensor]] = [[] for _ in maps]
        for pred, target in self._calls:
            labels = _labels(pred, target, self._head.num_classes)
            for level, marks in enumerate(_send_back(pred, labels, maps)):
                if marks is not None:
                    found[level].append(marks)
        none = torch.zeros(0, 4, dtype=torch.int64, device=maps[0].device)
        positives = [torch.cat([none, *level]).unique(dim=0) for level in found]
        region = [none] * len(maps)
        if self.region is not None:
            region = _region(self._head, maps, objects, positives, self.region)
        return positives, region


def _losses(head: Any) -> list[nn.Module]:
    """List the classification losses of a head; TOOD has a second one for its first epochs."""
    found = [getattr(head, name, None) for name in ("loss_cls", "initial_loss_cls")]
    return [loss for loss in found if isinstance(loss, nn.Module)]


def _objects(given: Sequence[Any]) -> Sequence[InstanceData]:
    """Find the annotated objects of each image among the arguments of ``loss_by_feat``."""
    for each in given:
        if isinstance(each, (list, tuple)) and each and isinstance(each[0], InstanceData):
            return each
    return []


def _labels(pred: Tensor, target: Any, num_classes: int) -> Tensor:
    """Class of each row of logits ``[P]``, -1 for a negative one.

    Args:
        pred: Logits ``[..., C]``, P rows of them.
        target: What ``loss_cls`` got: labels; labels and qualities; or the quality of each class,
            shaped as the logits.
        num_classes: Number of classes; a larger label is background.
    """
    if isinstance(target, (list, tuple)):
        target = target[0]
    if target.shape == pred.shape:
        quality, labels = target.reshape(-1, pred.shape[-1]).max(dim=1)
        return torch.where(quality > 0, labels, -1)
    labels = target.reshape(-1).long()
    return torch.where((labels >= 0) & (labels < num_classes), labels, -1)


def _send_back(pred: Tensor, labels: Tensor, maps: Sequence[Tensor]) -> Iterator[Tensor | None]:
    """Positions ``[M, 4]`` of each map that the rows with a label come from."""
    chosen = (labels >= 0).nonzero().squeeze(1)
    if len(chosen) == 0:
        yield from [None] * len(maps)
        return
    labels = labels[chosen]
    digits = [labels % DIGIT + 1]
    if int(labels.max()) >= DIGIT:
        digits.append(labels // DIGIT)
    marks = []
    for digit in digits:
        sent = pred.new_zeros(pred.shape)
        # One column is enough: all of a row lie at one position.
        sent.view(-1, pred.shape[-1])[chosen, 0] = digit.to(pred.dtype)
        marks.append(torch.autograd.grad(pred, maps, sent, retain_graph=True, allow_unused=True))
    for level in zip(*marks):
        if level[0] is None:
            yield None
            continue
        image, _, row, column = place = level[0].nonzero(as_tuple=True)
        values = [digit[place] for digit in level]
        label = values[0] - 1 + (DIGIT * values[1].float() if len(values) > 1 else 0)
        if not torch.equal(label, label.round()):
            raise UnsupportedTypeError(
                "kd_det.Positives: the head changes its class maps before it hands them to "
                "loss_cls, so that nothing says which positions it makes positive"
            )
        yield torch.stack([image, row, column, label.long()], dim=1)


def _region(
    head: Any,
    maps: Sequence[Tensor],
    objects: Sequence[InstanceData],
    positives: Sequence[Tensor],
    gamma: float,
) -> list[Tensor]:
    """Positions of the valuable localisation region that are not positive."""
    sizes = [x.shape[-2:] for x in maps]
    priors = head.prior_generator.grid_priors(sizes, device=maps[0].device)
    if priors[0].shape[1] != 4 or len(priors[0]) != sizes[0].numel():
        raise UnsupportedTypeError(
            "kd_det.Positives(region=...) needs a head with one anchor for each position, as GFL "
            f"and ATSS have, found a {type(head).__name__}"
        )
    found: list[list[Tensor]] = [[] for _ in maps]
    for image, instances in enumerate(objects):
        boxes = getattr(instances.bboxes, "tensor", instances.bboxes)
        if len(boxes) == 0:
            continue
        for level, inside in enumerate(valuable_region(priors, boxes, gamma)):
            at = inside.any(dim=1)
            # The class of the first object whose region it is in; nothing reads it.
            label = instances.labels[inside[at].int().argmax(dim=1)]
            at = at.nonzero().squeeze(1)
            width = sizes[level][1]
            place = [torch.full_like(at, image), at // width, at % width, label]
            found[level].append(torch.stack(place, dim=1))
    none = torch.zeros(0, 4, dtype=torch.int64, device=maps[0].device)
    return [
        _without(torch.cat([none, *at]), taken, size)
        for at, taken, size in zip(found, positives, sizes)
    ]


def _without(at: Tensor, taken: Tensor, size: torch.Size) -> Tensor:
    """Leave out the positions that are taken, by any class."""
    places = [(x[:, 0] * size[0] + x[:, 1]) * size[1] + x[:, 2] for x in (at, taken)]
    return at[~torch.isin(*places)]
