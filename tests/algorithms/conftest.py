"""What tests of the algorithm share."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from small import digits_config  # imports kd_det, which patches what the tests import


@pytest.fixture
def cfg(digits: Path, teacher_ckpt: Path, tmp_path: Path):
    """A pair of Faster R-CNNs with ReviewKD, the ND loss and KD."""
    options = {"model.teacher_ckpt": str(teacher_ckpt)}
    return digits_config("review_nd_kd", digits, tmp_path / "run", **options)


@pytest.fixture
def batch(cfg) -> dict:
    """A batch of its training data."""
    with DefaultScope.overwrite_default_scope("mmdet"):
        return next(iter(Runner.build_dataloader(cfg.train_dataloader, seed=0)))
