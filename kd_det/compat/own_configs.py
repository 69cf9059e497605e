"""Let configs of kd_det be named like `kd_det::digits/plain.py`.

mmengine 0.10.7 reads `package::path` for the packages of a list of its own, and as the base of
another config only. kd_det's configs have that name in `Config.fromfile` too. They are found in an
installed package and in a clone.
"""

from __future__ import annotations

from os import PathLike
from types import ModuleType
from typing import Any

import wrapt

from kd_det.shipped import find_configs

PREFIX = "kd_det::"


def patch() -> None:
    """Resolve the prefix where MMEngine looks for a config."""
    wrapt.register_post_import_hook(_wrap, "mmengine.config.config")


def _wrap(module: ModuleType) -> None:
    @wrapt.patch_function_wrapper(module, "Config._get_cfg_path")
    def get_base(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        def find(cfg_path: str, *rest: Any, **others: Any) -> Any:
            if cfg_path.startswith(PREFIX):
                return resolve(cfg_path), None  # of no other scope than a file of the user's
            return wrapped(cfg_path, *rest, **others)

        return find(*args, **kwargs)

    @wrapt.patch_function_wrapper(module, "Config.fromfile")
    def read(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        def find(filename: str | PathLike[str], *rest: Any, **others: Any) -> Any:
            if isinstance(filename, str) and filename.startswith(PREFIX):
                filename = resolve(filename)
            return wrapped(filename, *rest, **others)

        return find(*args, **kwargs)


def resolve(name: str) -> str:
    """The file of a config named `kd_det::path.py`.

    Raises:
        FileNotFoundError: If it does not exist, or kd_det's configs do not.
    """
    path = find_configs() / name[len(PREFIX) :]
    if not path.is_file():
        raise FileNotFoundError(f'file "{path}" does not exist')
    return str(path)
