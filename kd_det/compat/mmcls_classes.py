"""Let the classes that mmrazor derives from mmcls derive from mmpretrain, its present name.

mmrazor 1.0.0 imports their base classes from mmcls, which is not there any more (see
`kd_det.compat.mmcls`), and puts placeholders in their place: `DeiTClsHead` and `PackCRDClsInputs`,
which its configs for DeiT and CRD name, raise when they are built. Both get their real base, but
only once mmpretrain has been imported: nothing is loaded for their sake.

mmpretrain's distilled transformer also hands out two tokens where that of mmcls handed out the
patches as well, so that the head could not unpack them.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import wrapt

_HEAD = "mmrazor.models.architectures.heads.deit_head"
_FORMATTING = "mmrazor.datasets.transforms.formatting"


def patch() -> None:
    """Wait for the modules of both packages, in whatever order they are imported."""
    _when_both(_HEAD, "mmpretrain.models", _patch_head)
    _when_both(_FORMATTING, "mmpretrain.datasets.transforms.formatting", _patch_pack)


def _when_both(razor: str, pretrain: str, patch: Any) -> None:
    @wrapt.when_imported(razor)
    def first(of_razor: ModuleType) -> None:
        @wrapt.when_imported(pretrain)
        def second(of_pretrain: ModuleType) -> None:
            patch(of_razor, of_pretrain)


def _patch_head(razor: Any, pretrain: Any) -> None:
    if not _is_placeholder(razor.VisionTransformerClsHead):
        return
    razor.VisionTransformerClsHead = pretrain.VisionTransformerClsHead
    razor.DeiTClsHead.__bases__ = (pretrain.VisionTransformerClsHead,)

    @wrapt.patch_function_wrapper(razor, "DeiTClsHead.pre_logits")
    def pre_logits(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        def with_patches(feats: Any) -> Any:
            if len(feats[-1]) == 2:  # the tokens of class and distillation
                feats = (*feats[:-1], (None, *feats[-1]))
            return wrapped(feats)

        return with_patches(*args, **kwargs)


def _patch_pack(razor: Any, pretrain: Any) -> None:
    if not _is_placeholder(razor.PackClsInputs):
        return
    razor.PackClsInputs = pretrain.PackInputs
    razor.ClsDataSample = pretrain.DataSample
    razor.to_tensor = pretrain.to_tensor
    razor.PackCRDClsInputs.__bases__ = (pretrain.PackInputs,)


def _is_placeholder(base: type) -> bool:
    return base.__module__ == "mmrazor.utils.placeholder"
