"""What tests of the algorithm share."""

from __future__ import annotations

from pathlib import Path

import pytest
from small import digits_config  # imports kd_det, which patches what the tests import


@pytest.fixture
def cfg(digits: Path, teacher_ckpt: Path, tmp_path: Path):
    return digits_config("review_nd_kd", digits, tmp_path, **{"model.teacher_ckpt": teacher_ckpt})
