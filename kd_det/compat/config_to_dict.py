"""Let `Config.to_dict` return plain dicts at every depth.

In older mmengine (0.10.0 and before) only the outermost is one: those inside stay `ConfigDict`s,
whose `update` merges entries where that of a dict replaces them.
"""

from __future__ import annotations

from typing import Any

import wrapt


def patch() -> None:
    """Look at MMEngine's conversion once it is there."""
    wrapt.register_post_import_hook(_replace, "mmengine.config.config")


def _replace(module: Any) -> None:
    if type(module.ConfigDict(outer={"inner": 1}).to_dict()["outer"]) is dict:
        return
    convert_leaf = module._lazy2string

    def convert(value: Any, dict_type: type | None = None) -> Any:
        if isinstance(value, dict):
            items = {key: convert(entry, dict_type) for key, entry in dict.items(value)}
            return (dict_type or type(value))(items)
        if isinstance(value, (tuple, list)):
            return type(value)(convert(entry, dict_type) for entry in value)
        return convert_leaf(value)

    module._lazy2string = convert
