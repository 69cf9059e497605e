"""Let recorders keep what modules were given, not what in-place operations made of it.

mmrazor 1.0.0's `set_module_inplace_false` switches in-place operations off, so that a record of a
map before a ReLU is not overwritten by it. It descends into a module's children only where
`_modules` is an `OrderedDict`; in current torch it is a `dict`, and nothing is switched off: what
OFD and ReviewKD record before a ReLU is what comes out of it.
"""

from __future__ import annotations

from typing import Any

import wrapt


def patch() -> None:
    """Switch it off in all modules below the one that is given."""
    wrapt.register_post_import_hook(_wrap, "mmrazor.models.algorithms.base")


def _wrap(module: Any) -> None:
    @wrapt.patch_function_wrapper(module, "BaseAlgorithm.set_module_inplace_false")
    def set_false(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> None:
        def switch_off(architecture: Any, varstr: str) -> None:
            if not hasattr(architecture, "modules"):  # an OrderedDict of them
                wrapped(architecture, varstr)
                return
            for part in architecture.modules():
                if getattr(part, "inplace", False):
                    part.inplace = False

        switch_off(*args, **kwargs)
