"""Let an image classifier be built while another package's scope is the default.

mmpretrain 1.2.0's `ImageClassifier` names its default data preprocessor without a scope (its other
classifiers write `mmpretrain.ClsDataPreprocessor`), so the name is looked up in the scope of
whatever is being built around it. mmrazor 1.0.0's BYOT config builds `mmcls.ImageClassifier` in
mmrazor's: `ClsDataPreprocessor is not in the mmrazor::model registry`.
"""

from __future__ import annotations

from typing import Any

import wrapt


def patch() -> None:
    """Name mmpretrain's data preprocessor in full where a config names none."""
    wrapt.register_post_import_hook(_wrap, "mmpretrain.models.classifiers.image")


def _wrap(module: Any) -> None:
    @wrapt.patch_function_wrapper(module, "ImageClassifier.__init__")
    def init(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> None:
        given = kwargs.get("data_preprocessor")
        # `data_preprocessor` comes sixth; whoever passes it by position is left alone.
        if len(args) < 6 and (given is None or isinstance(given, dict)):
            default = {"type": "mmpretrain.ClsDataPreprocessor"}
            kwargs = {**kwargs, "data_preprocessor": {**default, **(given or {})}}
        wrapped(*args, **kwargs)
