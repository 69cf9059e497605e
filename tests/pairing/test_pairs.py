"""Pairs of mmdet's zoo: each is read, fitted, written, built and trained for a step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from small import build
from small_cls import detection_batch, give_random_centers
from torch import nn
from zoo import C4, CASCADE, FASTER, save_teacher, student

from kd_det.pairing.compose import Pairing, pair

pytestmark = pytest.mark.usefixtures("offline")

SIDE = 96  # two pixels at stride 64
FEW_ROIS = 32

# Teacher, student, method, and what must have been decided.
PAIRS = {
    "r50_r18": (FASTER, "r18", "review_nd_kd", "ReviewFusion 256 -> 256"),
    "r50_mv2": (
        FASTER,
        "mv2",
        "robust_fit",
        "the lateral convolutions of the student's FPN are fitted to the teacher's outputs",
    ),
    "swin_r18": (
        "mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py",
        "r18",
        "robust_nd_kd",
        "rpn_head: the student starts from 6 of the teacher's tensors",
    ),
    "mask_faster": (
        "mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py",
        "r18",
        "pkd_nd",
        "levels of strides 4, 8, 16, 32 are compared; the method leaves those of 64 out",
    ),
    "cascade_faster": (
        CASCADE,
        "r18",
        "kd_nd",
        "the teacher's last stage scores the student's RoIs (teacher_stage last)",
    ),
    "pafpn_fpn": (
        "mmdet::pafpn/faster-rcnn_r50_pafpn_1x_coco.py",
        "r18",
        "dist_nd",
        "the teacher is evaluated before training",
    ),
    # Beside the zoo's usual: other channels, levels, embeddings and stages.
    "r50_narrow": (
        FASTER,
        "narrow",
        "cwd",
        "levels of strides 4, 8, 16, 32 are compared; the teacher's of 64 have no partner",
    ),
    "c4_cascade": (C4, CASCADE, "cwd_nd_kd", "loss_nd for each of the student's 3 stages"),
}


def written(pairing: Pairing, folder: Path) -> Config:
    """What is read from the file that a pairing writes; it is what was made."""
    path = folder / "config" / "distill.py"
    pairing.write(path)
    cfg = Config.fromfile(path)
    assert cfg.to_dict() == pairing.cfg.to_dict()
    assert "_base_/methods/" in path.read_text()
    return cfg


def one_step(model: nn.Module) -> dict[str, torch.Tensor]:
    """Train a step; all losses are finite, and every part but the teacher changes."""
    give_random_centers(model)
    model.train()
    before = {name: p.clone() for name, p in model.named_parameters() if p.requires_grad}
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=1e-3))
    losses = model.train_step(detection_batch(SIDE, 1), wrapper)
    assert all(torch.isfinite(value).all() for value in losses.values())
    changed = {name for name, p in model.named_parameters() if not p.equal(before.get(name, p))}
    assert not {name for name in changed if name.startswith("teacher.")}
    connectors = {
        ".".join(name.split(".")[:3]) for name in before if name.startswith("distiller.connectors.")
    }
    parts = {"architecture.backbone", "architecture.neck", "architecture.roi_head", *connectors}
    for part in parts:
        assert any(name.startswith(f"{part}.") for name in changed), part
    return losses


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_of_the_zoo_trains(name, tmp_path):
    teacher, learner, method, decided = PAIRS[name]
    stages = [f".{stage}" for stage in range(3)] if learner == CASCADE else [""]
    options = {f"model.architecture.train_cfg.rcnn{i}.sampler.num": FEW_ROIS for i in stages}
    pairing = pair(student(learner, tmp_path), teacher, method, cfg_options=options)
    assert any(decided in decision for decision in pairing.decisions), pairing.decisions
    cfg = written(pairing, tmp_path)
    cfg.model.teacher_ckpt = save_teacher(cfg, tmp_path / "teacher.pth")
    losses = one_step(build(cfg.model))
    distilled = {key.split(".")[-1] for key in losses if key.startswith("distill.")}
    assert distilled == cfg.model.distiller.distill_losses.keys()
    assert all(losses[f"distill.{loss}"] > 0 for loss in distilled)


def test_a_neck_is_fitted_where_both_are_alike(tmp_path, digits):
    options = dict(method="robust_fit", data=str(digits))
    made = pair(student("r18", tmp_path), FASTER, **options)
    assert made.cfg.model.init_student_from_teacher == ["neck", "rpn_head", "roi_head"]
    assert dict(type="kd_det.NeckFitHook") in made.cfg.custom_hooks
    for learner, reason in (
        ("narrow", "the student's FPN has num_outs 4, the teacher's 5"),
        ("pafpn", "the student's neck is a PAFPN, the teacher's a FPN"),
    ):
        name = "mmdet::pafpn/faster-rcnn_r50_pafpn_1x_coco.py"
        name = student(learner, tmp_path) if learner == "narrow" else name
        made = pair(name, FASTER, **options)
        assert "neck" not in made.cfg.model.init_student_from_teacher
        assert dict(type="kd_det.NeckFitHook") not in made.cfg.custom_hooks
        assert f"the student's neck starts as its config says: {reason}" in made.describe()
