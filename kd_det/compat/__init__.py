"""Patches of what is broken in the stack below; the only room that knows of it.

Every file here patches one cause and says in its docstring what breaks, why, and where that can be
read. A patch looks first (or tries) and does nothing where nothing is broken, so none of them has
to be removed when a fixed release appears. None of them imports mmdet, mmrazor, mmcv or the heavy
parts of mmengine: what has to be changed there is changed when somebody else imports it.

`import kd_det` only waits (:func:`activate_with_stack`): as soon as the process also imports one of
the packages that are patched, the patches are made, before anything of that package runs. A process
that uses losses, connectors or centers with torch alone has nothing patched. Waiting for less than
that, such as for a config that names ``kd_det.``, would come too late: without the patches
`import mmrazor.models`, `import mmcv.ops` (and with it most of mmdet) and every `mmdet::` config
fail, so that `import kd_det` followed by `from mmdet...` would fail too.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

STACK = ("mmengine", "mmcv", "mmdet", "mmrazor", "mmpretrain")

PATCHES = (
    "require_mmcv",
    "mmcv.extension",
    "mmcv.kernel_types",
    "mmrazor_mmcv",
    "mmrazor_quantization",
    "torch_load",
    "downloads",
    "config_to_dict",
    "installed_path",
    "mmcls",  # after installed_path: `mmcls::` configs are found through it
    "mmcls_classes",
    "classifier_scope",
    "mmpretrain_transformers",
    "mmrazor_datafree",
    "mmrazor_inplace",
    "mmrazor_pkd",
    "renamed_configs",  # after mmcls: it sees the translated package name
    "renamed_types",
    "own_configs",
    "log_files",
    "cpu_distributed",
    "checkpoint_files",
    "sync_batchnorm",
    "mmdet_ssd",
    "mmdet_paste_mask",
)

_active = False


def activate() -> None:
    """Patch the stack, once per process; further calls do nothing."""
    global _active
    if _active:
        return
    _active = True
    for name in PATCHES:
        import_module(f"{__name__}.{name}").patch()


def activate_with_stack() -> None:
    """Patch the stack when one of its packages is imported, or now if one is already."""
    if any(package in sys.modules for package in STACK):
        activate()
    elif not any(isinstance(finder, _Trigger) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Trigger())


class _Trigger(MetaPathFinder):
    """Finds nothing; sees which packages are looked for.

    It stays where it is, since the import that it is asked about walks through the list.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in STACK:
            activate()
        return None
