"""Let `mmcls`, the former name of mmpretrain, stand for mmpretrain in configs.

mmrazor 1.0.0's classification configs inherit from `mmcls::...` and name types as `mmcls.X`.
mmcls 1.0 was renamed to mmpretrain before its release; there is no package of that name for
MMEngine. So none of these configs can be parsed, let alone built.

The name is translated where MMEngine resolves it. `import mmcls` is left to fail: modules and
classes were renamed inside the package too (`ClsDataSample` became `DataSample`), and mmrazor,
which tries such imports, would otherwise load all of mmpretrain with every detection run.
"""

from __future__ import annotations

import importlib.util
from types import ModuleType
from typing import Any

import wrapt

from kd_det.errors import MissingPackageError

_OLD, _NEW = "mmcls", "mmpretrain"


def patch() -> None:
    """Translate the name unless a package `mmcls` is there."""
    if importlib.util.find_spec(_OLD) is not None:
        return
    wrapt.register_post_import_hook(_translate_config_paths, "mmengine.config.utils")
    wrapt.register_post_import_hook(_translate_default_scope, "mmengine.registry.default_scope")
    wrapt.register_post_import_hook(_translate_types, "mmengine.registry.registry")
    for name in ("mmengine.hub.hub", "mmengine.hub"):
        wrapt.register_post_import_hook(_translate_hub_models, name)


def _translate_config_paths(module: ModuleType) -> None:
    """`mmcls::resnet/...`: MMEngine itself then asks for mmpretrain where it is missing."""
    module.MODULE2PACKAGE[_OLD] = _NEW


def _translate_default_scope(module: ModuleType) -> None:
    """`default_scope = 'mmcls'` and the `_scope_` of what a config inherits from `mmcls::`."""

    @wrapt.patch_function_wrapper(module, "DefaultScope.__init__")
    def init(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> None:
        def translate(name: str, scope_name: str) -> None:
            wrapped(name, _translated(scope_name))

        translate(*args, **kwargs)


def _translate_types(module: ModuleType) -> None:
    """`type='mmcls.ImageClassifier'`."""

    @wrapt.patch_function_wrapper(module, "Registry.split_scope_key")
    def split(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        scope, key = wrapped(*args, **kwargs)
        return _translated(scope), key


def _translate_hub_models(module: Any) -> None:
    """`cfg_path='mmcls::...'`, how mmrazor's configs name a whole model."""
    if isinstance(module.get_model, wrapt.FunctionWrapper):
        return  # the outer module took over the name from the inner one

    def get_model(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        def translate(cfg_path: str, *args: Any, **kwargs: Any) -> Any:
            package, separator, path = cfg_path.partition("::")
            return wrapped(f"{_translated(package)}{separator}{path}", *args, **kwargs)

        return translate(*args, **kwargs)

    module.get_model = wrapt.FunctionWrapper(module.get_model, get_model)


def _translated(scope: str | None) -> str | None:
    if scope != _OLD:
        return scope
    if importlib.util.find_spec(_NEW) is None:
        raise MissingPackageError(
            f"the config names `{_OLD}`, which is called {_NEW} today, and {_NEW} is not "
            f'installed: pip install {_NEW} (or "kd_det[cls]")'
        )
    return _NEW
