"""What tests of several rooms share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, Tensor]]:
    """Reads a file of golden vectors by its stem; tests/golden/README.md explains the keys."""
    from safetensors.torch import load_file

    return lambda stem: load_file(GOLDEN / f"{stem}.safetensors")
