"""A dry run builds what a training builds, finds what would end it, and leaves nothing."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from small import digits_config

from kd_det.errors import UserError
from kd_det.losses import CWDLoss
from kd_det.pairing.dry_run import dry_run


@pytest.fixture
def cfg(digits, teacher_ckpt, tmp_path):
    options = {"model.teacher_ckpt": str(teacher_ckpt), "train_dataloader.num_workers": 2}
    return digits_config("robust_nd_kd", digits, tmp_path / "work", **options)


def numbers() -> tuple:
    return random.getstate()[1], np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


def test_nothing_is_left(cfg, tmp_path):
    from mmdet.visualization import DetLocalVisualizer

    cfg.custom_hooks = [*cfg.custom_hooks, dict(type="EMAHook")]
    before, text = numbers(), str(cfg.to_dict())
    kept = dict(MMLogger._instance_dict), dict(DefaultScope._instance_dict)
    dry_run(cfg)
    assert numbers() == before and str(cfg.to_dict()) == text
    assert (dict(MMLogger._instance_dict), dict(DefaultScope._instance_dict)) == kept
    assert "kd_det_dry_run" not in DetLocalVisualizer._instance_dict
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"optim_wrapper.optimizer.speed": 3}, "speed"),
        ({"param_scheduler": [dict(type="LinearLR", begin=2, end=2)]}, "end should be larger"),
        ({"custom_hooks": [dict(type="NoSuchHook")]}, "NoSuchHook"),
        ({"val_evaluator.type": "NoSuchMetric"}, "NoSuchMetric"),
        ({"val_evaluator.ann_file": "no/such.json"}, "no/such.json"),
        ({"train_dataloader.dataset.pipeline": [dict(type="NoSuchStep")]}, "NoSuchStep"),
        (
            {"train_dataloader.drop_last": True, "train_dataloader.batch_size": 100},
            "train_dataloader has no batch: 24 images in batches of 100",
        ),
        ({"visualizer.vis_backends": [dict(type="NoSuchBackend")]}, "NoSuchBackend"),
        ({"train_dataloader.dataset.data_prefix.img": "nowhere/"}, "nowhere"),
    ],
)
def test_what_would_end_a_training_ends_a_dry_run(cfg, options, reason):
    cfg.merge_from_dict(options)
    with pytest.raises(Exception, match=reason):
        dry_run(cfg)


def test_losses_are_computed_for_a_batch_of_the_data(cfg, monkeypatch):
    def forward(loss, s_feats, t_feats):
        # The blank image with which a model is checked when it is built is one.
        assert len(s_feats[0]) == 1, "no batches of several images"
        return s_feats[0].sum()

    monkeypatch.setattr(CWDLoss, "forward", forward)
    with pytest.raises(AssertionError, match="no batches of several images"):
        dry_run(cfg)


def test_an_error_says_what_was_built(cfg):
    cfg.optim_wrapper.type = "NoSuchWrapper"
    with pytest.raises(KeyError) as caught:
        dry_run(cfg)
    assert caught.value.__notes__ == ["the dry run was at the optimizer (optim_wrapper)"]


def test_a_teacher_of_nan_is_refused(cfg, tmp_path):
    saved = torch.load(cfg.model.teacher_ckpt, weights_only=True)
    saved["state_dict"]["neck.fpn_convs.0.conv.weight"][0] = float("nan")
    torch.save(saved, tmp_path / "teacher.pth")
    cfg.model.teacher_ckpt = str(tmp_path / "teacher.pth")
    with pytest.raises(UserError, match=r"NaN or infinite.*neck\.fpn_convs\.0\.conv\.weight"):
        dry_run(cfg)
