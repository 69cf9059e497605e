"""The teacher's own input, made from the batch that the student's data preprocessor made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.detectors.base import BaseDetector
from torch import Tensor, nn

from kd_det.algorithms.wiring import WiringError

# Their effect on an image is known; a subclass with a forward of its own may do anything. By name,
# since mmpretrain need not be installed.
KNOWN_FORWARDS = (
    "mmdet.models.data_preprocessors.data_preprocessor.DetDataPreprocessor.forward",
    "mmengine.model.base_model.data_preprocessor.ImgDataPreprocessor.forward",
    "mmpretrain.models.utils.data_preprocessor.ClsDataPreprocessor.forward",
)


class TeacherInput(nn.Module):
    """Convert the student's batch to the one that the teacher's own data preprocessor would make.

    Both preprocessors read the same raw images, swap channels or not, normalise by ``mean`` and
    ``std`` (given in the order after the swap) or not, and pad to the right and below. So, for
    each channel of an image, in the teacher's order and with 0 and 1 for a missing mean and std::

        x_teacher = x_student * std_student / std_teacher
                    + (mean_student - mean_teacher) / std_teacher

    Outside of an image (``img_shape`` of its data sample) stands the teacher's ``pad_value``. The
    batch gets the size that the teacher's ``pad_size_divisor`` asks for; if it is also the
    student's, the size stays, so that the student's ``batch_augments`` may change it. Those of
    the teacher are left out, since it is to see the student's images. Images of a classifier,
    which its ``batch_augments`` may have mixed, count as filling the batch.

    The result differs from that of the teacher's preprocessor by rounding alone, by less than
    5e-5 of a grey level, of 255.

    Args:
        student: The data preprocessor that makes the student's batches.
        teacher: The data preprocessor of the teacher, kept as :attr:`preprocessor`.

    Raises:
        kd_det.algorithms.WiringError: If the two differ and one is not mmdet's
            ``DetDataPreprocessor``, mmengine's ``ImgDataPreprocessor`` or mmpretrain's
            ``ClsDataPreprocessor``.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, student: nn.Module, teacher: nn.Module) -> None:
        super().__init__()
        self.preprocessor = teacher
        known = all(_forward(side) in KNOWN_FORWARDS for side in (student, teacher))
        if not known and _settings(student) != _settings(teacher):
            raise WiringError(
                "student and teacher preprocess images differently, expected on both sides "
                "mmdet's DetDataPreprocessor, mmengine's ImgDataPreprocessor or mmpretrain's "
                "ClsDataPreprocessor, between which images are converted; found student "
                f"{_settings(student)}, teacher {_settings(teacher)}"
            )
        self.is_identity = not known
        if known:
            self._read(student, teacher)

    @classmethod
    def between(cls, student: nn.Module, model: Any) -> TeacherInput:
        """Convert from the student's data preprocessor to the one of ``model``, the teacher.

        A classifier's preprocessor that does nothing is the default where the config gives one at
        the top level, for both sides: then the teacher's is the student's.
        """
        teacher = model.data_preprocessor
        does_nothing = not (
            getattr(teacher, "_enable_normalize", False)
            or _swaps(teacher)
            or getattr(teacher, "pad_size_divisor", 1) > 1
        )
        return cls(
            student, student if does_nothing and not isinstance(model, BaseDetector) else teacher
        )

    def _read(self, student: Any, teacher: Any) -> None:
        self.swap = _swaps(student) != _swaps(teacher)
        self.fills_batch = "mmpretrain" in _forward(student)
        mean, std = _normalisation(student)
        if self.swap:
            mean, std = mean.flip(0), std.flip(0)
        teacher_mean, teacher_std = _normalisation(teacher)
        shift = (mean - teacher_mean) / teacher_std
        # Not in checkpoints: they follow from the configs.
        self.register_buffer("scale", (std / teacher_std).float(), persistent=False)
        self.register_buffer("shift", shift.float(), persistent=False)
        self.divisor: int = teacher.pad_size_divisor
        self.pad_value: float = teacher.pad_value
        self.keeps_size = student.pad_size_divisor == self.divisor
        self.is_identity = (
            not self.swap
            and bool((self.scale == 1).all() and (self.shift == 0).all())
            and self.keeps_size
            and student.pad_value == self.pad_value
        )

    def forward(self, inputs: Tensor, data_samples: Sequence[Any] | None) -> Tensor:
        """Convert the student's batch ``[N, C, H, W]`` to the teacher's ``[N, C, H', W']``.

        Computed in float32 or higher, returned in the dtype of ``inputs``. Where both
        preprocessors do the same, this is ``inputs`` itself.
        """
        if self.is_identity:
            return inputs
        if self.fills_batch or data_samples is None:
            shapes = [tuple(inputs.shape[-2:])] * len(inputs)
        else:
            shapes = [sample.metainfo["img_shape"][:2] for sample in data_samples]
        height, width = inputs.shape[-2:] if self.keeps_size else self._padded_size(shapes)
        x = inputs[..., :height, :width]
        x = F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2]))
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        if self.swap:
            x = x.flip(1)
        x = x * self.scale + self.shift
        outside = _outside(shapes, height, width, inputs.device)
        return x.masked_fill(outside, self.pad_value).to(inputs.dtype)

    def _padded_size(self, shapes: Sequence[Sequence[int]]) -> list[int]:
        return [math.ceil(max(side) / self.divisor) * self.divisor for side in zip(*shapes)]

    @property
    def hint(self) -> str:
        """Advice where student and teacher get batches of different sizes."""
        return (
            " Student and teacher pad the same image to different sizes; if that is the reason, "
            f"set the student's data_preprocessor.pad_size_divisor to the teacher's, {self.divisor}"
        )

    def describe(self) -> str:
        """Describe the teacher's batch."""
        text = "the student's batch"
        if not self.is_identity:
            mean, std = (x.flatten().tolist() for x in _normalisation(self.preprocessor))
            text += ", channels swapped" if self.swap else ""
            text += (
                f", converted to mean {mean}, std {std}, pad_size_divisor {self.divisor}, "
                f"pad_value {self.pad_value}"
            )
        if getattr(self.preprocessor, "batch_augments", None):
            text += "; the teacher's own batch_augments are left out"
        return text


def _forward(preprocessor: nn.Module) -> str:
    """Name the definition of a preprocessor's ``forward``."""
    function = type(preprocessor).forward
    return f"{function.__module__}.{function.__qualname__}"


def _swaps(preprocessor: Any) -> bool:
    """Tell whether a preprocessor swaps channels."""
    return bool(
        getattr(preprocessor, "to_rgb", getattr(preprocessor, "_channel_conversion", False))
    )


def _normalisation(preprocessor: Any) -> tuple[Tensor, Tensor]:
    """Mean and std, ``[C, 1, 1]`` or ``[1, 1, 1]`` in float64."""
    if not preprocessor._enable_normalize:
        return torch.zeros(1, 1, 1).double(), torch.ones(1, 1, 1).double()
    return preprocessor.mean.double(), preprocessor.std.double()


def _outside(
    shapes: Sequence[Sequence[int]], height: int, width: int, device: torch.device
) -> Tensor:
    """Mask the padding of a batch of images of ``shapes``: bool ``[N, 1, height, width]``."""
    # Not blocking: a copy of a few numbers should not wait for the device.
    heights, widths = torch.tensor(shapes).to(device, non_blocking=True).T
    below = torch.arange(height, device=device) >= heights[:, None]
    right = torch.arange(width, device=device) >= widths[:, None]
    return below[:, None, :, None] | right[:, None, None, :]


def _settings(preprocessor: nn.Module) -> dict[str, Any]:
    """Type, options and buffers of a preprocessor and of those inside it."""
    found: dict[str, Any] = {}
    for name, module in preprocessor.named_modules():
        prefix = f"{name}." if name else ""
        found[f"{prefix}type"] = type(module).__name__
        options = {k: v for k, v in vars(module).items() if not k.startswith("_")}
        options |= {k: v.flatten().tolist() for k, v in module.named_buffers(recurse=False)}
        options["channel_swap"] = _swaps(module)
        found |= {f"{prefix}{k}": v for k, v in options.items() if k != "training"}
    return found
