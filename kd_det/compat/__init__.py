"""What is broken in the stack below, mended; the only room that knows of it.

Every file here mends one cause and says in its docstring what breaks, why, and where that can be
read. A mend looks first (or tries) and does nothing where nothing is broken, so none of them has
to be removed when a fixed release appears. None of them imports mmdet, mmrazor, mmcv or the heavy
parts of mmengine: what has to be changed there is changed when somebody else imports it.
"""

from __future__ import annotations

from kd_det.compat import (
    checkpoint_files,
    classifier_scope,
    config_lookup,
    config_text,
    cpu_distributed,
    downloads,
    installed_path,
    mmcls,
    mmcls_classes,
    mmcv_ops,
    mmrazor_datafree,
    mmrazor_inplace,
    mmrazor_quantization,
    renamed_configs,
    renamed_types,
    require_mmcv,
    sync_batchnorm,
    torch_load,
)

_active = False


def activate() -> None:
    """Mend the stack, once per process; further calls do nothing."""
    global _active
    if _active:
        return
    require_mmcv.check()  # first: without any mmcv the rest could not be used
    mmcv_ops.mend()
    mmrazor_quantization.mend()
    torch_load.mend()
    downloads.mend()
    installed_path.mend()
    mmcls.mend()  # after installed_path: `mmcls::` configs are found through it
    mmcls_classes.mend()
    classifier_scope.mend()
    mmrazor_datafree.mend()
    mmrazor_inplace.mend()
    renamed_configs.mend()  # after mmcls: it sees the translated package name
    renamed_types.mend()
    cpu_distributed.mend()
    checkpoint_files.mend()
    sync_batchnorm.mend()
    config_text.mend()
    config_lookup.mend()
    _active = True
