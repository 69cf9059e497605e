"""The ND loss and ReviewKD beside MMRazor's losses in MMRazor's configs reach the student."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config
from small import ROOT
from small_cls import (
    batch,
    build_distiller,
    detection_batch,
    give_random_centers,
    gradients_reach_student,
    losses_of,
)

pytestmark = pytest.mark.usefixtures("offline")

MIXED = sorted((ROOT / "configs" / "mixed").glob("*.py"))  # each has an entry in THEIRS
THEIRS = {
    "cwd_frcnn_r101_r50": {f"loss_cwd_fpn{level}" for level in range(5)},
    "pkd_frcnn_r101_r50": {f"loss_pkd_fpn{level}" for level in range(4)},
    "fbkd_frcnn_r101_r50": {f"loss_s{level}" for level in range(4)},
    "kd_r34_r18": {"loss_kl"},
    "dkd_r34_r18": {"loss_dkd"},
}
OURS = {"loss_nd", "loss_review"}


@pytest.mark.parametrize("path", MIXED, ids=lambda path: path.stem)
def test_both_losses_reach_the_student(path: Path):
    cfg = Config.fromfile(path)
    # Their weights would be downloaded.
    for side in ("architecture", "teacher"):
        cfg.model[side].pretrained = False
    assert cfg.custom_hooks == [dict(type="kd_det.ClassCenterHook")]
    model = build_distiller(cfg)
    give_random_centers(model)
    # FBKD pools by 8 what is left at stride 8.
    data = detection_batch(128) if "frcnn" in path.stem else batch(1000, 64)
    losses = losses_of(model, data)
    distilled = {k.removeprefix("distill."): v for k, v in losses.items() if "distill." in k}
    assert distilled.keys() == THEIRS[path.stem] | OURS
    assert all(loss.isfinite() and loss > 0 for loss in distilled.values())
    for name in OURS:
        assert gradients_reach_student(model, distilled[name]), name
    assert any(key.startswith("student.") for key in losses)
