"""Options that make a step faster and change its result by rounding at most."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from mmrazor.models.distillers import ConfigurableDistiller
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from kd_det.errors import InvalidInputError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Old names of options; they stay valid.
RENAMED = {"fold_teacher": "fuse_conv_bn"}


@dataclass(frozen=True)
class Speed:
    """Options of ``model.speed`` in a config; the defaults change nothing.

    ``model.speed='auto'`` stands for ``dict(auto=True)``.

    Args:
        auto: Time the teacher's backbone and neck in the first step, with and without
            ``fuse_conv_bn`` and ``channels_last`` (of the teacher alone), and keep what is fastest
            and equal up to rounding: :class:`~kd_det.algorithms.auto_speed.AutoSpeed`. Any other
            option than ``overlap_teacher`` takes its place.
        teacher_dtype: ``'bfloat16'`` or ``'float16'``: the teacher runs under autocast of that
            type, whatever the student does, and its convolutions and linear layers are stored in
            it (those of heads not where CrossKD runs them on the student's maps).
            ``'float32'``: in float32 also where the student trains with mixed precision. None: as
            the student.
        fuse_conv_bn: Fuse the teacher's batch norms into its convolutions once it is loaded.
        compile_teacher: Run the teacher's backbone and neck through ``torch.compile``, or with
            its options, as ``dict(mode='max-autotune')``. It compiles anew for images of another
            size, so it suits data of few sizes.
        channels_last: Keep maps of student and teacher in channels-last order.
        cache_teacher: True, or options of
            :class:`~kd_det.algorithms.teacher_cache.CacheOptions`, as ``dict(budget_gb=50)``: keep
            the teacher's pyramid of each image on disk, for when it comes again as it was
            augmented and padded before: where images have one size and a flip is the only random
            transform.
        overlap_teacher: On a GPU, run the teacher on a CUDA stream of its own, beside the
            student's forward pass.

    Raises:
        ValueError: For another ``teacher_dtype``.
    """

    auto: bool = False
    teacher_dtype: str | None = None
    fuse_conv_bn: bool = False
    compile_teacher: bool | Mapping[str, Any] = False
    channels_last: bool = False
    overlap_teacher: bool = False
    cache_teacher: bool | Mapping[str, Any] = False

    def __post_init__(self) -> None:
        if self.teacher_dtype is not None and self.teacher_dtype not in DTYPES:
            raise InvalidInputError(
                f"speed.teacher_dtype: expected one of {sorted(DTYPES)} or None, found "
                f"{self.teacher_dtype!r}"
            )

    @classmethod
    def of(cls, options: Mapping[str, Any] | str | None) -> Speed:
        """Read a config; raises ``ValueError`` for unknown options."""
        if isinstance(options, str):
            options = {options: True}
        given = dict(options or {})
        for old, new in RENAMED.items():
            if old in given:
                warnings.warn(
                    f"model.speed: {old} is now called {new}", DeprecationWarning, stacklevel=2
                )
                given.setdefault(new, given.pop(old))
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(given) - set(known)):
            raise InvalidInputError(
                f"model.speed: expected options out of {known}, found {unknown}"
            )
        if any(given[name] for name in given.keys() - {"auto", "overlap_teacher"}):
            given["auto"] = False
        return cls(**given)

    def __str__(self) -> str:
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        told = [k if v is True else f"{k} {v}" for k, v in given.items() if v]
        return ", ".join(told) or "as it is"

    def set_layout(
        self, student: nn.Module, teacher: nn.Module, distiller: ConfigurableDistiller
    ) -> None:
        """Convert all three to channels-last order, if :attr:`channels_last` is set."""
        if not self.channels_last:
            return
        for model in (student, teacher, distiller):
            model.to(memory_format=torch.channels_last)
        for part in (*distiller.connectors.values(), *distiller.distill_losses.values()):
            # Many of MMRazor's call view() on maps, which needs the contiguous order.
            if not type(part).__module__.startswith("kd_det."):
                part.register_forward_pre_hook(_make_contiguous, with_kwargs=True)

    def layout(self, images: Tensor) -> Tensor:
        """Convert a batch ``[N, C, H, W]`` to the memory order of the options."""
        if not self.channels_last:
            return images
        return images.contiguous(memory_format=torch.channels_last)


def _make_contiguous(_: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
    return tree_map_only(Tensor, Tensor.contiguous, (args, kwargs))
