"""Whole runs of classification recipes: pre-pass, training, evaluation, in the Runner."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.runner import Runner
from small import runner
from small_cls import CLS, build_classifier

from kd_det.algorithms import WiringError
from kd_det.centers import ClassCenters
from kd_det.recipes import load_named


def run_of(recipe: str, work_dir: Path, **options: object) -> Runner:
    """A recipe of the digits for one epoch, with a teacher of random weights."""
    cfg = load_named(CLS / "digits" / f"{recipe}.py")
    object.__setattr__(cfg, "_format_python_code", False)
    teacher = work_dir / "teacher.pth"
    torch.save(build_classifier(cfg.model.teacher).state_dict(), teacher)
    cfg.model.teacher_ckpt = str(teacher)
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    cfg.default_hooks.logger.interval = 1
    cfg.work_dir = str(work_dir)
    cfg.merge_from_dict(options)
    return runner(cfg)


def logged(run: Runner, name: str) -> np.ndarray:
    return run.message_hub.get_scalar(name).data[0]


@pytest.mark.parametrize("mixed", [False, True])
def test_every_class_has_a_mean_also_where_training_mixes_images(tmp_path, mixed):
    options = {"custom_hooks.1.interval": 1}
    if mixed:
        options["data_preprocessor.num_classes"] = 10
        options["data_preprocessor.batch_augments"] = dict(
            augments=[dict(type="CutMix", alpha=1.0)]
        )
    run = run_of("review_nd", tmp_path, **options)
    run.train()
    centers = ClassCenters.load(tmp_path / "class_centers.safetensors")
    assert centers.counts.tolist() == [20] * 10
    for loss in ("loss_nd", "loss_review"):
        values = logged(run, f"train/distill.{loss}")
        assert len(values) == 7 and np.isfinite(values).all() and (values > 0).all()
    for side in ("student", "teacher"):
        assert (np.abs(logged(run, f"train/distill_monitor/nd/{side}_cosine")) <= 1).all()
    agreement = logged(run, "train/distill_monitor/nd/agreement")
    assert len(agreement) == 7 and ((agreement >= 0) & (agreement <= 1)).all()
    assert logged(run, "train/weight/loss_review").tolist() == [0.2] * 7
    assert 0 <= logged(run, "val/accuracy/top1")[-1] <= 100


def test_an_embedding_may_be_a_level_of_a_pyramid(tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    mapping = "model.distiller.loss_forward_mappings.loss_nd.t_emb"
    level = dict(recorder="stages", from_student=False, data_idx=3)
    torch.manual_seed(0)
    run_of("review_nd", tmp_path / "a").train()
    torch.manual_seed(0)
    run_of("review_nd", tmp_path / "b", **{mapping: level}).train()
    a, b = (ClassCenters.load(tmp_path / name / "class_centers.safetensors") for name in "ab")
    torch.testing.assert_close(a.means, b.means)


def test_labels_out_of_a_pyramid_are_refused(tmp_path):
    mapping = "model.distiller.loss_forward_mappings.loss_nd.labels"
    level = dict(recorder="stages", from_student=True, data_idx=0)
    with pytest.raises(WiringError, match=r"labels from student backbone\[0\]"):
        run_of("review_nd", tmp_path, **{mapping: level})
