"""Let a compiled mmcv suppress boxes and align RoIs in the types of AMP, and in any layout.

mmcv 2.1 reads maps as if they were contiguous: of one in `channels_last`, RoIAlign's values are
silently others. It compiles NMS for float32, and RoIAlign for float32, float64 and, on a GPU,
float16: in bfloat16, and in float16 on a CPU, a Faster R-CNN ends in "expected scalar type Float
but found BFloat16" or "not implemented for 'BFloat16'". Such maps are copied or converted here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import wrapt
from torch import Tensor

from kd_det.compat.mmcv.common import EXTENSION

# The types of each op's kernels, and which of its tensors it writes.
OPS: dict[str, tuple[set[torch.dtype], tuple[int, ...]]] = {
    "nms": ({torch.float32}, ()),
    "roi_align_forward": ({torch.float32, torch.float64}, (2, 3, 4)),
    "roi_align_backward": ({torch.float32, torch.float64}, (4,)),
}


def patch() -> None:
    """Wrap the ops when mmcv's compiled extension is imported."""
    wrapt.register_post_import_hook(_widen, EXTENSION)


def _widen(extension: Any) -> None:
    if getattr(extension, "__file__", None) is None:  # that of kd_det.compat.mmcv.extension
        return
    for name, (dtypes, written) in OPS.items():
        setattr(extension, name, as_kernels_need(getattr(extension, name), dtypes, written))


def as_kernels_need(
    op: Callable[..., Any], dtypes: set[torch.dtype], written: tuple[int, ...]
) -> Callable[..., Any]:
    """Let `op` be called with tensors of any floating type and any layout.

    Args:
        op: A function of tensors, by position, and options, by name.
        dtypes: Those that it takes; float16 on a GPU too where it takes more than float32.
        written: Positions of the tensors that it writes into.
    """

    @functools.wraps(op)
    def call(*tensors: Tensor, **options: Any) -> Any:
        tensors = tuple(x if i in written else x.contiguous() for i, x in enumerate(tensors))
        first = tensors[0]
        if first.dtype in dtypes or (
            len(dtypes) > 1 and first.is_cuda and first.dtype == torch.float16
        ):
            return op(*tensors, **options)
        converted = [tensor.float() for tensor in tensors]
        result = op(*converted, **options)
        for i in written:
            tensors[i].copy_(converted[i])
        return result

    return call
