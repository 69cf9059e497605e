"""Our losses beside MMRazor's in MMRazor's own configs: each of them reaches the student."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
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

MIXED = sorted((ROOT / "configs" / "mixed").glob("*.py"))
THEIRS = {
    "cwd_frcnn_r101_r50": {f"loss_cwd_fpn{level}" for level in range(5)},
    "pkd_frcnn_r101_r50": {f"loss_pkd_fpn{level}" for level in range(4)},
    "fbkd_frcnn_r101_r50": {f"loss_s{level}" for level in range(4)},
    "kd_r34_r18": {"loss_kl"},
    "dkd_r34_r18": {"loss_dkd"},
}
OURS = {"loss_nd", "loss_review"}


def test_every_one_is_here():
    assert {path.stem for path in MIXED} == THEIRS.keys()


@pytest.mark.parametrize("path", MIXED, ids=lambda path: path.stem)
def test_every_loss_reaches_the_student(path: Path):
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
    for name, loss in distilled.items():
        assert loss.isfinite() and loss > 0, name
        assert gradients_reach_student(model, loss), name
    assert any(key.startswith("student.") for key in losses)

    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    before = {k: v.clone() for k, v in model.architecture.state_dict().items()}
    teacher = {k: v.clone() for k, v in model.teacher.state_dict().items()}
    model.train_step(data, optim_wrapper)
    after = model.architecture.state_dict()
    assert any(not torch.equal(value, after[key]) for key, value in before.items())
    assert all(
        torch.equal(value, teacher[key]) for key, value in model.teacher.state_dict().items()
    )
