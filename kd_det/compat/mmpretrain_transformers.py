"""Let mmpretrain be imported beside a transformers that its multimodal models do not know.

mmpretrain 1.2.0 takes `apply_chunking_to_forward` and others from `transformers.modeling_utils`,
where transformers 5 no longer has them. Its models then derive from None, and `import
mmpretrain.models`, which mmdet needs too, ends in "TypeError: NoneType takes no arguments". Without
transformers it registers placeholders that say what is missing, and so it does with this patch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import wrapt

NEEDED = ("apply_chunking_to_forward", "find_pruneable_heads_and_indices", "prune_linear_layer")


def patch() -> None:
    """Let mmpretrain do without multimodal models where transformers lacks what they need."""
    wrapt.register_post_import_hook(_look, "mmpretrain.utils.dependency")


def _look(module: Any) -> None:
    if not module.WITH_MULTIMODAL:
        return
    try:
        found = import_module("transformers.modeling_utils")
    except Exception:  # a broken transformers stops no detector
        found = None
    module.WITH_MULTIMODAL = all(hasattr(found, name) for name in NEEDED)
