"""Let downloaded checkpoints load as carefully as local ones: with `weights_only=True`.

MMEngine's `load_from_http` (for `https://`, `torchvision://` and `open-mmlab://` names) calls
`torch.hub.load_state_dict_from_url`, whose `weights_only` is still False by default (before torch
2.1 it has none), so that a downloaded file could run code. A file that needs more than weights is
refused as a local one is.
"""

from __future__ import annotations

import functools
import inspect
import os
from typing import Any
from urllib.parse import urlparse

import torch
import wrapt

from kd_det.compat.torch_load import EXECUTES_BY_DEFAULT, load_carefully


def patch() -> None:
    """Wrap the download function where MMEngine has bound it."""
    wrapt.register_post_import_hook(_weights_only, "mmengine.runner.checkpoint")


def _weights_only(module: Any) -> None:
    default = inspect.signature(module.load_url).parameters.get("weights_only")
    if EXECUTES_BY_DEFAULT:
        module.load_url = _load_url
    elif default is not None and default.default is False:
        module.load_url = functools.partial(module.load_url, weights_only=True)


def _load_url(
    url: str, model_dir: str | None = None, map_location: Any = None, progress: bool = True
) -> Any:
    """`torch.hub.load_state_dict_from_url`, as far as MMEngine uses it, for torch before 2.6."""
    folder = model_dir or os.path.join(torch.hub.get_dir(), "checkpoints")
    os.makedirs(folder, exist_ok=True)
    file = os.path.join(folder, os.path.basename(urlparse(url).path))
    if not os.path.exists(file):
        torch.hub.download_url_to_file(url, file, progress=progress)
    return load_carefully(file, map_location)
