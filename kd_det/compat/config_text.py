"""Format the text of a config once, not at every use.

MMEngine formats it with yapf whenever it is asked for: for the log, the copy in the work directory
and the visualizer when a run begins, and for the metadata of every checkpoint. Each time takes
seconds, though the text is mostly the same.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import wrapt


def mend() -> None:
    """Remember the last few texts that were formatted."""
    wrapt.register_post_import_hook(_wrap, "mmengine.config.config")


def _wrap(module: Any) -> None:
    function = module.FormatCode
    if isinstance(function, wrapt.FunctionWrapper):
        return

    @lru_cache(maxsize=8)
    def formatted(text: str, style: tuple, options: tuple) -> Any:
        return function(text, style_config=dict(style), **dict(options))

    def remembered(wrapped: Any, instance: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        style = kwargs.get("style_config")
        if len(args) != 1 or not isinstance(style, dict):  # not how MMEngine calls it today
            return wrapped(*args, **kwargs)
        options = {key: value for key, value in kwargs.items() if key != "style_config"}
        return formatted(args[0], tuple(style.items()), tuple(options.items()))

    module.FormatCode = wrapt.FunctionWrapper(function, remembered)
