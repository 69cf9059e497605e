"""Let MMRazor's PKD compute in float32 under mixed precision.

mmrazor 1.0.0's `PKDLoss` standardises maps in the type in which autocast left them. In float16 the
gradient is NaN for maps with a standard deviation of 1e-4, and off by half for one of 2000;
bfloat16 keeps two digits.
"""

from __future__ import annotations

from typing import Any

import wrapt


def patch() -> None:
    """Convert both sides' 16-bit maps before anything is computed from them."""
    wrapt.register_post_import_hook(_wrap, "mmrazor.models.losses.pkd_loss")


def _wrap(module: Any) -> None:
    import torch

    def convert(maps: Any) -> Any:
        if isinstance(maps, torch.Tensor):
            return maps.to(torch.promote_types(maps.dtype, torch.float32))
        return [convert(each) for each in maps]

    @wrapt.patch_function_wrapper(module, "PKDLoss.forward")
    def forward(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        return wrapped(*map(convert, args), **{key: convert(each) for key, each in kwargs.items()})
