"""Reports on small runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="package")
def few_rounds() -> Iterator[None]:
    """Latency is measured in three rounds; nothing is asserted of it."""
    from kd_det.report import cost

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "ROUNDS", 3)
        yield
