"""Let downloaded checkpoints load as carefully as local ones: with `weights_only=True`.

MMEngine's `load_from_http` (for `https://`, `torchvision://` and `open-mmlab://` names) calls
`torch.hub.load_state_dict_from_url`, whose `weights_only` is still False by default, so that a
downloaded file could run code. A file that needs more than weights is refused as a local one is.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

import wrapt


def patch() -> None:
    """Wrap the download function where MMEngine has bound it."""
    wrapt.register_post_import_hook(_weights_only, "mmengine.runner.checkpoint")


def _weights_only(module: Any) -> None:
    default = inspect.signature(module.load_url).parameters.get("weights_only")
    if default is not None and default.default is False:
        module.load_url = functools.partial(module.load_url, weights_only=True)
