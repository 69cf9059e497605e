"""Find config files of mmdet and mmpretrain under the names they had.

Two configs that mmrazor 1.0.0 ships (`cwd_fpn_frcnn_r101_frcnn_r50_1x_coco.py` and
`deit-base_regnety160_pt-16xb64_in1k.py`) name files that were renamed before mmdet 3.0 and
mmpretrain 1.0 came out: the one does not build, the other does not even parse. The weights listed
in the packages' metafiles still carry the former names.
"""

from __future__ import annotations

import os.path as osp
from typing import Any

import wrapt

# (package, former path) -> path
RENAMED = {
    ("mmdet", "faster_rcnn/faster_rcnn_r50_fpn_1x_coco.py"): (
        "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py"
    ),
    ("mmdet", "faster_rcnn/faster_rcnn_r101_fpn_2x_coco.py"): (
        "faster_rcnn/faster-rcnn_r101_fpn_2x_coco.py"
    ),
    ("mmpretrain", "deit/deit-base_pt-16xb64_in1k.py"): "deit/deit-base_16xb64_in1k.py",
}


def patch() -> None:
    """Look up renamed files wherever MMEngine splits `package::path`."""
    # The function lives in the first module; the others hold it under the same name.
    for name in ("mmengine.config.utils", "mmengine.config.config", "mmengine.hub.hub"):
        wrapt.register_post_import_hook(_wrap, name)


def _wrap(module: Any) -> None:
    function = module._get_package_and_cfg_path
    if not isinstance(function, wrapt.FunctionWrapper):
        module._get_package_and_cfg_path = wrapt.FunctionWrapper(function, _renamed)


def _renamed(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> tuple[str, str]:
    package, path = wrapped(*args, **kwargs)
    present = RENAMED.get((package, path))
    if present is None:
        return package, path
    from mmengine.utils import get_installed_path, is_installed

    if is_installed(package):
        folder = osp.join(get_installed_path(package), ".mim", "configs")
        if not osp.exists(osp.join(folder, path)) and osp.exists(osp.join(folder, present)):
            path = present
    return package, path
