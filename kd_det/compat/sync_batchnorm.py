"""Let `sync_bn` convert what is trained, and keep the hooks of what it converts.

With `sync_bn` in a config, mmengine 0.10.7 replaces every batch norm of the model by a synchronised
one: also the teacher's, which has nothing to synchronise; and the new modules have none of the old
ones' hooks, so that recorders of a batch norm record nothing.
"""

from __future__ import annotations

from typing import Any

import wrapt


def patch() -> None:
    """Wrap the conversion where MMEngine's runner has bound it."""
    wrapt.register_post_import_hook(_wrap, "mmengine.runner.runner")


def _wrap(module: Any) -> None:
    function = module.convert_sync_batchnorm
    if not isinstance(function, wrapt.FunctionWrapper):
        module.convert_sync_batchnorm = wrapt.FunctionWrapper(function, _converted)


def _converted(wrapped: Any, instance: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    def convert(model: Any, *args: Any, **kwargs: Any) -> Any:
        teacher = model._modules.pop("teacher", None)
        before = dict(model.named_modules())
        try:
            model = wrapped(model, *args, **kwargs)
        finally:
            if teacher is not None:
                model._modules["teacher"] = teacher
        for name, old in before.items():
            new = model.get_submodule(name)
            if new is not old:
                new._forward_hooks.update(old._forward_hooks)
                new._forward_pre_hooks.update(old._forward_pre_hooks)
        return model

    return convert(*args, **kwargs)
