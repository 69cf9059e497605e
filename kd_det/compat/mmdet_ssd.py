"""Let SSD be evaluated with mmdet 3.3.

`BaseDenseHead._predict_by_feat_single` asks `self.loss_cls` for its channels since v3det came in;
`SSDHead`, whose loss is a function, has no such attribute: every evaluation ends in "'SSDHead'
object has no attribute 'loss_cls'". None, which has no channels of its own either, is what it gets.
"""

from __future__ import annotations

from typing import Any

import wrapt


def patch() -> None:
    """Add the attribute when mmdet's module is imported."""
    wrapt.register_post_import_hook(_add_attribute, "mmdet.models.dense_heads.ssd_head")


def _add_attribute(module: Any) -> None:
    if not hasattr(module.SSDHead, "loss_cls"):
        module.SSDHead.loss_cls = None
