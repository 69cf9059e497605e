"""Options that make a step faster and change its result by rounding at most."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import torch
from mmcv.cnn import fuse_conv_bn
from mmrazor.models.distillers import ConfigurableDistiller
from mmrazor.models.task_modules.recorder.base_recorder import BaseRecorder
from torch import Tensor, nn

from kd_det.algorithms.checkpoint import weights_sha256
from kd_det.algorithms.wiring import WiringError
from kd_det.errors import InvalidInputError
from kd_det.recorders import parts

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# What compiling and folding change inside.
FEATURES = ("backbone", "neck")
# Of folding, relative to the largest entry of a level of the pyramid.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Speed:
    """What ``model.speed`` in a config may set; the defaults change nothing.

    Args:
        teacher_dtype: ``'bfloat16'`` or ``'float16'``: the teacher runs under autocast of that
            type, whatever the student does. ``'float32'``: in float32 also where the student
            trains with mixed precision. None: as the student.
        fold_teacher: Fold the teacher's batch norms into its convolutions once it is loaded.
        compile_teacher: Run the teacher's backbone and neck through ``torch.compile``, or with
            its options, as ``dict(mode='max-autotune')``. It compiles anew for images of another
            size, so it suits data of few sizes.
        channels_last: Keep maps of student and teacher in channels-last order.
        overlap_teacher: On a GPU, run the teacher's pyramid on a CUDA stream of its own, beside
            the student's forward pass.

    Raises:
        ValueError: For another ``teacher_dtype``.
    """

    teacher_dtype: str | None = None
    fold_teacher: bool = False
    compile_teacher: bool | Mapping[str, Any] = False
    channels_last: bool = False
    overlap_teacher: bool = False

    def __post_init__(self) -> None:
        if self.teacher_dtype is not None and self.teacher_dtype not in DTYPES:
            raise InvalidInputError(
                f"speed.teacher_dtype: expected one of {sorted(DTYPES)} or None, found "
                f"{self.teacher_dtype!r}"
            )

    @classmethod
    def of(cls, options: Mapping[str, Any] | None) -> Speed:
        """From a config; raises ``ValueError`` for options that there are not."""
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(options or {}) - set(known)):
            raise InvalidInputError(
                f"model.speed: expected options out of {known}, found {unknown}"
            )
        return cls(**(options or {}))

    def __str__(self) -> str:
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        return ", ".join(f"{k} {v}" for k, v in given.items() if v) or "as it is"

    def prepare(
        self, student: nn.Module, teacher: nn.Module, distiller: ConfigurableDistiller
    ) -> None:
        """Change the layout of all models, and the teacher inside, as the options say.

        Args:
            student: The student.
            teacher: The teacher, in eval mode, with its weights.
            distiller: What has their recorders, connectors and losses.

        Raises:
            kd_det.algorithms.WiringError: If a recorder reads what compiling or folding change.
            RuntimeError: If a folded teacher does not compute what it computed before.
        """
        if self.compile_teacher or self.fold_teacher:
            _check_recorders(distiller.teacher_recorders.recorders.values())
        if self.fold_teacher:
            fold(teacher)
        if self.channels_last:
            for model in (student, teacher, distiller):
                model.to(memory_format=torch.channels_last)
            for part in (*distiller.connectors.values(), *distiller.distill_losses.values()):
                # Many of MMRazor's take maps apart by view(), which asks for the usual order.
                if not type(part).__module__.startswith("kd_det."):
                    part.register_forward_pre_hook(_usual_layout, with_kwargs=True)
        if self.compile_teacher:
            options = {} if self.compile_teacher is True else dict(self.compile_teacher)
            for part in _features(teacher):
                # The method, so that recorders, hooks on the module, stay outside.
                part.forward = torch.compile(part.forward, **options)

    def layout(self, images: Tensor) -> Tensor:
        """A batch ``[N, C, H, W]`` in the order that the options ask for."""
        if not self.channels_last:
            return images
        return images.contiguous(memory_format=torch.channels_last)

    def teacher_autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """The context of the teacher's forward pass."""
        if self.teacher_dtype is None:
            return nullcontext()
        dtype = DTYPES[self.teacher_dtype]
        return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


@contextmanager
def beside(device: torch.device, active: bool) -> Iterator[None]:
    """Run what is inside on a CUDA stream of its own; without a GPU, or not ``active``, as ever.

    What it reads must be on its way already; :func:`join` has to follow before others read it.
    """
    if not active or device.type != "cuda":
        yield
        return
    stream = _stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        yield


def join(device: torch.device, active: bool, results: Any) -> None:
    """Let the current stream wait for :func:`beside` and take its ``results`` over."""
    if not active or device.type != "cuda":
        return
    current = torch.cuda.current_stream(device)
    current.wait_stream(_stream(device))
    for result in tensors(results):
        # Else the allocator might give their memory away while the current stream reads them.
        result.record_stream(current)


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    # One for all steps: each stream keeps freed memory for itself.
    return torch.cuda.Stream(device)


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in nested lists, tuples and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple, Mapping)):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from tensors(part)


def _usual_layout(_: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
    return _contiguous(args), _contiguous(kwargs)


def _contiguous(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.contiguous()
    if isinstance(value, Mapping):
        return {key: _contiguous(each) for key, each in value.items()}
    return type(value)(map(_contiguous, value)) if isinstance(value, (list, tuple)) else value


def _features(model: nn.Module) -> list[Any]:
    found = [getattr(model, name, None) for name in FEATURES]
    return [part for part in found if isinstance(part, nn.Module)]


def _check_recorders(recorders: Iterable[BaseRecorder]) -> None:
    inside = tuple(f"{name}." for name in FEATURES)
    for source in (part.source for recorder in recorders for part in parts(recorder)):
        if source.startswith(inside):
            raise WiringError(
                "speed.compile_teacher and fold_teacher change the teacher's "
                f"{' and '.join(FEATURES)} inside: expected recorders of them as a whole or of "
                f"other parts, found one of '{source}'"
            )


@torch.no_grad()
def fold(teacher: Any) -> None:
    """Fold batch norms of backbone and neck, and check that their output stays."""
    device = next(teacher.parameters()).device
    with torch.random.fork_rng(devices=[]):
        images = torch.randn(1, 3, 64, 64).to(device)
    before = _run(teacher, images)
    # Files of class centers and of the teacher's mAP name the weights that were loaded.
    teacher.folded_from = weights_sha256(teacher)
    for part in _features(teacher):
        fuse_conv_bn(part)
    for old, new in zip(before, _run(teacher, images)):
        if not (new - old).abs().max() <= TOLERANCE * old.abs().max():
            raise RuntimeError(
                "speed.fold_teacher: the teacher's batch norms do not follow its convolutions as "
                "they are named, its output is another one; leave fold_teacher out"
            )


def _run(teacher: nn.Module, images: Tensor) -> list[Tensor]:
    found: Any = images
    for part in _features(teacher):
        found = part(found)
    return list(found) if isinstance(found, (list, tuple)) else [found]
