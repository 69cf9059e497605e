"""The fastest form of a teacher's pyramid that computes the same, found by timing."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from mmcv.cnn import fuse_conv_bn
from mmengine import dist
from mmengine.logging import MessageHub, print_log
from torch import Tensor, nn

from kd_det.timing import one_round

# Relative to the largest entry of a level of the pyramid.
TOLERANCE = 1e-5
# Of the time as it is: less is not told from noise.
GAIN = 0.95
ROUNDS, MOST_ROUNDS, SECONDS = 3, 15, 1.0


@dataclass(frozen=True)
class Form:
    """How backbone and neck run: batch norms fused or not, in which memory order.

    Maps leave it in the usual order, so that what reads them does not change.
    """

    fuse_conv_bn: bool = False
    channels_last: bool = False

    def __str__(self) -> str:
        return " and ".join(name for name, value in vars(self).items() if value) or "as it is"

    def change(self, parts: Sequence[nn.Module]) -> None:
        """Bring parts into this form, in place."""
        for part in parts:
            if self.fuse_conv_bn:
                fuse_conv_bn(part)
            if self.channels_last:
                part.to(memory_format=torch.channels_last)

    def layout(self, images: Tensor) -> Tensor:
        """Convert images ``[N, C, H, W]`` to its memory order."""
        return (
            images.contiguous(memory_format=torch.channels_last) if self.channels_last else images
        )

    def run(self, parts: Sequence[nn.Module], images: Tensor) -> list[Tensor]:
        """Run parts that are in this form, without their hooks, which are recorders."""
        found: Any = self.layout(images)
        for part in parts:
            found = part.forward(found)
        return [x.contiguous() for x in (found if isinstance(found, (list, tuple)) else [found])]


FORMS = tuple(Form(fused, last) for fused in (False, True) for last in (False, True))


class AutoSpeed:
    """Choose the form of a teacher in the first step, and bring it into that form.

    All forms run on the images of that step, in turns; the fastest is kept if it is as exact as the
    teacher is as it stands, and faster by a twentieth. The first process decides for all, a resumed
    run for the rest of it; in deterministic mode nothing is timed. What runs before the first step,
    as a pre-pass, runs as it is.

    Args:
        parts: Backbone and, if there is one, neck.
        read: Those of them whose output recorders read: it is converted to the usual order.
        name: Of the teacher, under which MMEngine's message hub, and so a checkpoint, keeps the
            form.
    """

    def __init__(self, parts: Sequence[nn.Module], read: Sequence[nn.Module], name: str) -> None:
        self.parts, self.read = parts, read
        self.key = f"kd_det/form of teacher {name}"

    @torch.no_grad()
    def settle(self, images: Tensor) -> None:
        """Choose by images ``[N, C, H, W]``, and change the teacher. Every process calls it."""
        hub = MessageHub.get_current_instance()
        kept = hub.get_info(self.key, None)
        form = self._decide(images) if kept is None else Form(**kept)
        hub.update_info(self.key, dict(vars(form)))
        form.change(self.parts)
        if form.channels_last:
            self.parts[0].register_forward_pre_hook(partial(_with_layout, form))
            for part in self.read:  # before recorders, which are hooks too
                part.register_forward_hook(_as_usual, prepend=True)

    def _decide(self, images: Tensor) -> Form:
        if torch.are_deterministic_algorithms_enabled():
            return Form()
        found = [choose(self.parts, images) if dist.is_main_process() else Form()]
        dist.broadcast_object_list(found)
        return found[0]


def choose(parts: Sequence[nn.Module], images: Tensor) -> Form:
    """Time all forms of ``parts`` on images ``[N, C, H, W]``; log the times and what is kept."""
    models: dict[Form, Sequence[nn.Module]] = {}
    results: dict[Form, list[Tensor]] = {}
    left_out = dict.fromkeys(FORMS, "other results")
    for form in FORMS:
        try:
            models[form] = parts if form == Form() else _copy(parts, form)
            results[form] = form.run(models[form], images)
        except Exception as error:  # some layers call view(), or cannot be copied or fused
            if form == Form():
                raise
            left_out[form] = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    exact = _exact_forms(results, parts, images)
    calls = [partial(form.run, models[form], images) for form in exact]
    rounds: list[list[float]] = []
    while len(rounds) < ROUNDS or (len(rounds) < MOST_ROUNDS and _total(rounds) < SECONDS):
        rounds.append(one_round(calls, images.device, first=len(rounds)))
    times = dict(zip(exact, (median(each) for each in zip(*rounds))))
    best = min(exact, key=lambda form: times[form])
    kept = best if times[best] < GAIN * times[Form()] else Form()
    listed = ", ".join(f"{form} {seconds * 1000:.3g} ms" for form, seconds in times.items())
    text = f"The teacher's backbone and neck take: {listed}. Kept: {kept}."
    reasons = [f"{form} ({left_out[form]})" for form in FORMS if form not in exact]
    if reasons:
        text += f" Left out: {', '.join(reasons)}."
    print_log(text, logger="current")
    return kept


def _exact_forms(
    results: dict[Form, list[Tensor]], parts: Sequence[nn.Module], images: Tensor
) -> list[Form]:
    """Those as near to the result in float32 as the teacher as it stands, rounding aside."""
    stored = next(parts[0].parameters()).dtype  # float32, unless somebody converted the model
    with torch.autocast(images.device.type, enabled=False), _without_tf32(images.device):
        reference = Form().run(parts, images.to(stored))
    error = {form: _error(maps, reference) for form, maps in results.items()}
    most = max(TOLERANCE, 2 * error[Form()])
    return [form for form in error if form == Form() or error[form] <= most]


def _error(maps: Sequence[Tensor], reference: Sequence[Tensor]) -> float:
    pairs = zip(maps, reference)
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-30)) for a, b in pairs)


def _without_tf32(device: torch.device) -> AbstractContextManager[Any]:
    if device.type != "cuda":
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False)


def _total(rounds: Sequence[Sequence[float]]) -> float:
    return sum(map(sum, rounds))


def _copy(parts: Sequence[nn.Module], form: Form) -> list[nn.Module]:
    """Copies in another form; hooks, which are recorders that hold maps, stay behind."""
    copies = []
    for part in parts:
        hooks = part._forward_hooks, part._forward_pre_hooks
        part._forward_hooks, part._forward_pre_hooks = OrderedDict(), OrderedDict()
        try:
            copies.append(copy.deepcopy(part))
        finally:
            part._forward_hooks, part._forward_pre_hooks = hooks
    form.change(copies)
    return copies


def _with_layout(form: Form, _: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (form.layout(args[0]), *args[1:])


def _as_usual(_: nn.Module, __: Any, output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.contiguous()
    if isinstance(output, (list, tuple)):
        return type(output)(x.contiguous() for x in output)
    return output
