"""Let mmrazor distil without data in a single process.

`DataFreeDistillation` and `DAFLDataFreeDistillation` (mmrazor 1.0.0) ask for
`self.generator.module.latent_dim`: `module` is there only while the generator is wrapped for
distributed training, so every run on one GPU or on a CPU ends in an AttributeError.
"""

from __future__ import annotations

from typing import Any

import wrapt


def patch() -> None:
    """Give generators a `module`, themselves, as a wrapper has one."""
    wrapt.register_post_import_hook(_add, "mmrazor.models.architectures.generators.base_generator")


def _add(module: Any) -> None:
    if not hasattr(module.BaseGenerator, "module"):
        module.BaseGenerator.module = property(lambda generator: generator)
