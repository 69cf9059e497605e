"""Read the metafiles of a package once, not for every config that is inherited from it.

For each ``mmdet::...`` MMEngine reads and parses all metafiles of the package, a hundred for mmdet,
to look for one name in them. A recipe has several of these bases, and each takes a fifth of a
second.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import wrapt


def mend() -> None:
    """Remember the files that the look-up has read."""
    wrapt.register_post_import_hook(_remember, "mmengine.config.utils")


def _remember(module: Any) -> None:
    # It reads metafiles alone, and changes nothing in them.
    if not hasattr(module.load, "cache_info"):
        module.load = lru_cache(maxsize=None)(module.load)
