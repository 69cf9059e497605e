"""Make MMEngine's reading and writing of configs fast; the results are the same.

- For each ``mmdet::...`` MMEngine parses all metafiles of the package, a hundred for mmdet, to look
  for one name in them: a fifth of a second for each base of a recipe. Each is read once instead.
- It formats a config with yapf, which takes seconds, whenever its text is asked for: for the log,
  the copy in the work directory, the visualizer and every checkpoint. A text is formatted once.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from mmengine.config import config, utils


def install() -> None:
    """Cache both, once per process; further calls do nothing."""
    # The look-up reads metafiles alone, and changes nothing in them.
    if not hasattr(utils.load, "cache_info"):
        utils.load = lru_cache(maxsize=None)(utils.load)
    # onedl-mmengine writes configs without yapf.
    if hasattr(config, "FormatCode") and not hasattr(config.FormatCode, "__wrapped__"):
        config.FormatCode = _cached_format(config.FormatCode)


def _cached_format(format_code: Any) -> Any:
    @lru_cache(maxsize=8)
    def formatted(text: str, style: tuple, options: tuple) -> Any:
        return format_code(text, style_config=dict(style), **dict(options))

    def cached(*args: Any, **kwargs: Any) -> Any:
        style = kwargs.get("style_config")
        if len(args) != 1 or not isinstance(style, dict):  # not how MMEngine calls it today
            return format_code(*args, **kwargs)
        options = {key: value for key, value in kwargs.items() if key != "style_config"}
        return formatted(args[0], tuple(style.items()), tuple(options.items()))

    cached.__wrapped__ = format_code  # type: ignore[attr-defined]
    return cached
