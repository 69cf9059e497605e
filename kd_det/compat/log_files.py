"""Let log files be UTF-8, whatever the locale.

mmengine 0.10.7 opens them in the locale's encoding. A line with a class name that it lacks is not
written, and a traceback of `logging` is printed in its place.
"""

from __future__ import annotations

import logging
from typing import Any

import wrapt


def patch() -> None:
    """Change the encoding of a log file once MMEngine has opened it."""
    wrapt.register_post_import_hook(_wrap, "mmengine.logging.logger")


def _wrap(module: Any) -> None:
    @wrapt.patch_function_wrapper(module, "MMLogger.__init__")
    def init(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> None:
        wrapped(*args, **kwargs)
        for handler in instance.handlers:
            if isinstance(handler, logging.FileHandler) and handler.stream is not None:
                handler.stream.reconfigure(encoding="utf-8", errors="backslashreplace")
                handler.encoding, handler.errors = "utf-8", "backslashreplace"  # of the next file
