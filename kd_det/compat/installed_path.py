"""Find installed packages without `pkg_resources`.

`mmengine.utils.is_installed` and `get_installed_path` (mmengine 0.10.7) import `pkg_resources`,
which setuptools 81 removed. Every `mmdet::...` config goes through them.
"""

from __future__ import annotations

import importlib.util
import os.path as osp
from importlib import metadata
from types import ModuleType

import wrapt

_HOME = "mmengine.utils.package_utils"
# Where the functions are bound by name; patched too, should mmengine have been imported already.
_BOUND_IN = ("mmengine.utils", "mmengine.config.config", "mmengine.hub.hub")


def patch() -> None:
    """Replace mmengine's two look-ups unless `pkg_resources` is there for them."""
    if importlib.util.find_spec("pkg_resources") is not None:
        return
    for name in (_HOME, *_BOUND_IN):
        wrapt.register_post_import_hook(_replace, name)


def _replace(module: ModuleType) -> None:
    for function in (is_installed, get_installed_path, package2module):
        if hasattr(module, function.__name__):
            setattr(module, function.__name__, function)


def is_installed(package: str) -> bool:
    """Whether `package` is the name of a distribution or of an importable, real package."""
    try:
        metadata.distribution(package)
    except metadata.PackageNotFoundError:
        spec = importlib.util.find_spec(package)
        return spec is not None and spec.origin is not None
    return True


def get_installed_path(package: str) -> str:
    """The folder of `package`, the name of a distribution or of a module (`.../mmdet`).

    Raises PackageNotFoundError where neither exists and RuntimeError for a namespace package,
    which has no single folder.
    """
    try:
        location = str(metadata.distribution(package).locate_file(""))
    except metadata.PackageNotFoundError:
        return _module_folder(package)
    for module in (package, package2module(package)):
        path = osp.join(location, module)
        if osp.exists(path):
            return path
    # An editable installation: the metadata lies in site-packages, the code does not.
    return _module_folder(module)


def package2module(package: str) -> str:
    """The module that the distribution `package` installs (`mmcv-lite` -> `mmcv`)."""
    top_level = metadata.distribution(package).read_text("top_level.txt")
    if not top_level:
        raise ValueError(
            f"can not infer the module name of {package}: its metadata has no top_level.txt"
        )
    return top_level.split("\n")[0]


def _module_folder(module: str) -> str:
    spec = importlib.util.find_spec(module)
    if spec is None:
        raise metadata.PackageNotFoundError(module)
    if spec.origin is None:
        raise RuntimeError(
            f"{module} is a namespace package, which is invalid for `get_installed_path`"
        )
    return osp.dirname(spec.origin)
