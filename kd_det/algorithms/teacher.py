"""The teacher: one object that owns its weights and its forward passes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import cache, cached_property
from typing import Any

import torch
from mmcv.cnn import fuse_conv_bn
from mmengine.model import BaseModel, BaseModule
from mmrazor.models.task_modules import ModuleInputsRecorder
from mmrazor.models.task_modules.recorder.base_recorder import BaseRecorder
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from kd_det.algorithms.auto_speed import AutoSpeed
from kd_det.algorithms.checkpoint import CheckpointError, load_weights, weights_sha256
from kd_det.algorithms.speed import DTYPES, Speed
from kd_det.algorithms.teacher_cache import CacheOptions, PyramidCache
from kd_det.algorithms.wiring import WiringError
from kd_det.recorders import flat

# Parts that extract_feat runs; compiling and fusing change their inside.
FEATURES = ("backbone", "neck")
# Layers whose weights autocast converts, and where those lie that do nothing else with them.
CONVERTED = (nn.modules.conv._ConvNd, nn.Linear)
PLAIN_LAYERS = ("torch.nn.", "mmcv.cnn.bricks.wrappers")
# Of fusing, relative to the largest entry of a level of the pyramid.
TOLERANCE = 1e-3


class Teacher:
    """A model that is loaded, run and never changed.

    It is in eval mode, without gradients, and no part of an algorithm's checkpoints, parameters
    or copies: the algorithm holds it as an attribute, not as a submodule, so that optimizers,
    averages of weights and DistributedDataParallel do not see it.

    Args:
        model: The teacher as it was built.
        checkpoint: File or URL of its weights; None if it is loaded already.
        speed: Precision, fusing, compilation and streams; the defaults change nothing.

    Attributes:
        classes: Names of the classes that it was trained on, where its checkpoint has them.

    Raises:
        kd_det.algorithms.CheckpointError: If the checkpoint lacks weights, or has NaN or infinite
            ones.
    """

    def __init__(
        self, model: BaseModel, checkpoint: str | None = None, speed: Speed | None = None
    ) -> None:
        self.model = model
        self.speed = speed or Speed()
        self.classes: list[str] | None = None
        self.cache: PyramidCache | None = None
        self._auto: AutoSpeed | None = None  # until it has chosen
        self.is_shared = False
        if checkpoint is not None:
            self.classes = load_weights(model, checkpoint, "teacher")
        _require_finite(model, checkpoint)
        model.requires_grad_(False).eval()
        for module in model.modules():
            # Weight initialisation would overwrite what was loaded, or download a backbone.
            if isinstance(module, BaseModule):
                module.is_init = True

    def __deepcopy__(self, memo: dict[int, Any]) -> Teacher:
        """Share the model with copies of the algorithm, such as an average of its weights."""
        shared = type(self).__new__(type(self))
        shared.__dict__.update(self.__dict__, is_shared=True)
        return shared

    @cached_property
    def sha256(self) -> str:
        """Digest of the weights that were loaded, before options changed them; computed once."""
        return weights_sha256(self.model)

    @property
    def device(self) -> torch.device:
        """Device of its weights."""
        return next(self.model.parameters()).device

    def move(self, *args: Any, **kwargs: Any) -> None:
        """Follow the algorithm to another device or dtype, unless this is a copy's."""
        if not self.is_shared:
            self.model._apply(*args, **kwargs)

    @contextmanager
    def forward_context(self, ahead: bool = False) -> Iterator[None]:
        """The context of its forward passes: no gradient, its dtype and, ``ahead``, its stream.

        Call :meth:`wait_for` before results of a pass ahead of the student are read.
        """
        stream = _stream(self.device) if ahead and self._overlaps else None
        if stream is not None:
            stream.wait_stream(torch.cuda.current_stream(self.device))
        dtype = DTYPES.get(self.speed.teacher_dtype or "")
        if dtype is None:
            autocast: AbstractContextManager = nullcontext()
        elif dtype == torch.float32:  # older torch refuses it as a dtype to cast to
            autocast = torch.autocast(self.device.type, enabled=False)
        else:
            autocast = torch.autocast(self.device.type, dtype=dtype)
        cached = self.cache.active() if ahead and self.cache else nullcontext()
        on_stream = torch.cuda.stream(stream) if stream else nullcontext()
        with torch.no_grad(), on_stream, autocast, cached:
            yield

    def wait_for(self, results: Any) -> None:
        """Wait for a pass ahead of the student, whose ``results`` are nested tensors."""
        if not self._overlaps:
            return
        current = torch.cuda.current_stream(self.device)
        current.wait_stream(_stream(self.device))
        for result in tree_flatten(results)[0]:
            # Else the allocator might give their memory away while the current stream reads them.
            if isinstance(result, Tensor):
                result.record_stream(current)

    @property
    def _overlaps(self) -> bool:
        return self.speed.overlap_teacher and self.device.type == "cuda"

    def speed_up(self, recorders: Iterable[BaseRecorder], lends_heads: bool = False) -> None:
        """Fuse, store in 16 bits, compile and cache, if the options ask for it; or time what pays.

        Raises:
            kd_det.algorithms.WiringError: If a recorder of the teacher reads inside of these, or if
                fusing changes the output of the teacher.
        """
        if self.speed.compile_teacher or self.speed.fuse_conv_bn:
            _check_recorders(recorders)
        dtype = DTYPES.get(self.speed.teacher_dtype or "", torch.float32)
        changes = self.speed.auto or self.speed.fuse_conv_bn or self.speed.cache_teacher
        if changes or dtype != torch.float32:
            self.sha256  # of the weights that were loaded  # noqa: B018
        if self.speed.auto:
            self._prepare_choice(recorders)
        if self.speed.fuse_conv_bn:
            fuse(self.model)
        if dtype != torch.float32:
            for part in _features(self.model).values() if lends_heads else [self.model]:
                store(part, dtype)
            self.model.forward = self._in_context(self.model.forward)
        if self.speed.compile_teacher:
            given = self.speed.compile_teacher
            compiling: dict[str, Any] = {} if given is True else dict(given)
            first, *behind = _features(self.model).values()
            # The method, so that recorders, hooks on the module, stay outside.
            first.forward = _new_step(torch.compile(first.forward, **compiling))
            for part in behind:
                part.forward = torch.compile(part.forward, **compiling)
        if self.speed.cache_teacher:
            _check_cached(recorders, "neck" if hasattr(self.model, "neck") else "backbone")
            # Fused, compiled or in another order, layers round otherwise.
            other_options = str(replace(self.speed, cache_teacher=False))
            options = CacheOptions.of(self.speed.cache_teacher)
            self.cache = PyramidCache(self.model, options, [self.sha256, other_options])

    def settle(self, images: Tensor) -> None:
        """Choose the fastest form at the first images ``[N, C, H, W]``, if ``speed.auto`` asks."""
        if self._auto is not None:
            auto, self._auto = self._auto, None
            auto.settle(images)

    def _prepare_choice(self, recorders: Iterable[BaseRecorder]) -> None:
        parts = _features(self.model)
        if _read_inside(recorders) or "backbone" not in parts:
            return
        read = {list(parts)[-1], *(recorder.source for recorder in flat(recorders))}
        of_read = [part for name, part in parts.items() if name in read]
        self._auto = AutoSpeed(list(parts.values()), of_read, self.sha256[:12])

    def _in_context(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        """A forward pass of the whole model that may come from anywhere, as an evaluation's."""

        def call(*args: Any, **kwargs: Any) -> Any:
            with self.forward_context():
                return forward(*args, **kwargs)

        return call


@torch.no_grad()
def fuse(model: Any) -> None:
    """Fuse batch norms of backbone and neck into convolutions; check that the output stays."""
    device = next(model.parameters()).device
    with torch.random.fork_rng(devices=[]):
        images = torch.randn(1, 3, 64, 64).to(device)
    before = _run(model, images)
    for part in _features(model).values():
        fuse_conv_bn(part)
    for old, new in zip(before, _run(model, images)):
        if not (new - old).abs().max() <= TOLERANCE * old.abs().max():
            raise WiringError(
                "speed.fuse_conv_bn: the teacher's batch norms do not follow its convolutions in "
                "the order of their names, so that fusing changes its output; leave fuse_conv_bn "
                "out"
            )


def store(model: nn.Module, dtype: torch.dtype) -> None:
    """Store the weights of plain convolutions and linear layers in a 16-bit ``dtype``.

    Those are the ones that autocast converts in every pass; what a pass computes does not change.
    """
    for layer in model.modules():
        if isinstance(layer, CONVERTED) and type(layer).__module__.startswith(PLAIN_LAYERS):
            for name, value in list(layer.named_parameters(recurse=False)):
                # A tensor of its own: others may have to start from what was loaded.
                setattr(layer, name, nn.Parameter(value.detach().to(dtype), requires_grad=False))


def _new_step(compiled: Callable[..., Any]) -> Callable[..., Any]:
    """Tell torch that a pass begins: CUDA graphs then overwrite no map of one that has not ended.

    Without it, running the neck's graph may already count as a step after the backbone's.
    """
    mark = getattr(getattr(torch, "compiler", None), "cudagraph_mark_step_begin", None)  # torch 2.1

    def call(*args: Any, **kwargs: Any) -> Any:
        if mark is not None:
            mark()
        return compiled(*args, **kwargs)

    return call


def _run(model: nn.Module, images: Tensor) -> list[Tensor]:
    found: Any = images
    for part in _features(model).values():
        found = part(found)
    return list(found) if isinstance(found, (list, tuple)) else [found]


def _features(model: nn.Module) -> dict[str, Any]:
    found = {name: getattr(model, name, None) for name in FEATURES}
    return {name: part for name, part in found.items() if isinstance(part, nn.Module)}


def _check_recorders(recorders: Iterable[BaseRecorder]) -> None:
    if inside := _read_inside(recorders):
        raise WiringError(
            "speed.compile_teacher and speed.fuse_conv_bn change the teacher's "
            f"{' and '.join(FEATURES)} inside: expected recorders of them as a whole or of "
            f"other parts, found one of '{inside[0]}'"
        )


def _read_inside(recorders: Iterable[BaseRecorder]) -> list[str]:
    """Names of the modules inside of backbone and neck that recorders read."""
    inside = tuple(f"{name}." for name in FEATURES)
    return [each.source for each in flat(recorders) if each.source.startswith(inside)]


def _check_cached(recorders: Iterable[BaseRecorder], last: str) -> None:
    for recorder in flat(recorders):
        part = recorder.source.split(".")[0]
        behind = recorder.source == last and not isinstance(recorder, ModuleInputsRecorder)
        if part in FEATURES and not behind:
            raise WiringError(
                f"speed.cache_teacher keeps what the teacher's {last} gives and nothing before it: "
                f"expected recorders of its output or of parts behind it, found one of "
                f"'{recorder.source}'; leave cache_teacher out"
            )


def _require_finite(model: nn.Module, checkpoint: str | None) -> None:
    broken = [
        name
        for name, value in model.state_dict().items()
        if value.is_floating_point() and not value.isfinite().all()
    ]
    if broken:
        raise CheckpointError(
            f"the teacher's weights ({checkpoint or 'given as a model'}) have NaN or infinite "
            f"values in {len(broken)} tensors, among them {', '.join(broken[:3])}; use another "
            "checkpoint"
        )


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    # One for all steps: each stream keeps freed memory for itself.
    return torch.cuda.Stream(device)
