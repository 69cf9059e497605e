"""Let configs name mmpretrain's `PackInputs` as mmcls did: `PackClsInputs`.

The pipelines of mmrazor 1.0.0's BYOT config, and of all other data sets for classification that
it ships, end with that name, which mmpretrain 1.0 dropped: `PackClsInputs is not in the
mmpretrain::transform registry`.
"""

from __future__ import annotations

from typing import Any

import wrapt

_FORMER, _PRESENT = "PackClsInputs", "PackInputs"


def patch() -> None:
    """Register the class under both names."""
    wrapt.register_post_import_hook(_register, "mmpretrain.datasets.transforms.formatting")


def _register(module: Any) -> None:
    registry = module.TRANSFORMS
    if _FORMER not in registry.module_dict:
        registry.register_module(name=_FORMER, module=getattr(module, _PRESENT))
