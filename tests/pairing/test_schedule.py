"""The student's schedule, brought to another length."""

from __future__ import annotations

import pytest

from kd_det.pairing.data import Data
from kd_det.pairing.methods import bases
from kd_det.pairing.schedule import set_schedule
from kd_det.pairing.text import inherited

# As mmdet's 1x, for eight images a step.
ONE_X = dict(
    train_cfg=dict(type="EpochBasedTrainLoop", max_epochs=12, val_interval=2),
    param_scheduler=[
        dict(type="LinearLR", by_epoch=False, begin=0, end=500),
        dict(type="MultiStepLR", by_epoch=True, begin=0, end=12, milestones=[8, 11]),
    ],
    optim_wrapper=dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=1e-4)),
    auto_scale_lr=dict(enable=False, base_batch_size=8),
)


def made(student: dict, epochs: int | None = None, images: int | None = None, batch: int = 2):
    cfg = inherited(bases("kd"))
    cfg["train_dataloader"]["batch_size"] = batch
    return cfg, set_schedule(cfg, student, Data({}, ("a",), images), epochs)


def test_the_students_own_is_taken():
    cfg, decisions = made(ONE_X)
    assert cfg["optim_wrapper"] == ONE_X["optim_wrapper"]
    assert cfg["param_scheduler"] == ONE_X["param_scheduler"]
    assert cfg["auto_scale_lr"] == dict(enable=True, base_batch_size=8)
    assert decisions == [
        "schedule: the student's own, 12 epochs, AdamW with learning rate 0.0001 for a batch of 8, "
        "scaled to that of the run"
    ]


@pytest.mark.parametrize(
    ("epochs", "milestones", "interval"), [(24, [16, 22], 2), (6, [4, 6], 2), (1, [1, 1], 1)]
)
def test_epochs_scale_what_is_counted_in_epochs(epochs, milestones, interval):
    cfg, _ = made(ONE_X, epochs)
    warm_up, steps = cfg["param_scheduler"]
    assert steps["milestones"] == milestones and steps["end"] == epochs and steps["begin"] == 0
    assert cfg["train_cfg"] == dict(
        type="EpochBasedTrainLoop", max_epochs=epochs, val_interval=interval
    )
    assert warm_up["end"] == 500
    assert ONE_X["train_cfg"]["max_epochs"] == 12  # what was given stays


def test_warm_up_takes_a_tenth_of_training_at_most():
    # 12 epochs of 50 steps.
    cfg, decisions = made(ONE_X, images=99)
    assert cfg["param_scheduler"][0]["end"] == 60
    assert "warm-up of 500 iterations shortened to 60, a tenth of training" in decisions
    cfg, decisions = made(ONE_X, images=10000)
    assert cfg["param_scheduler"][0]["end"] == 500 and len(decisions) == 1


@pytest.mark.parametrize("student", [{}, dict(train_cfg=dict(type="IterBasedTrainLoop"))])
def test_without_epochs_of_its_own_it_is_coco_s(student):
    cfg, decisions = made(student, 6)
    assert cfg["train_cfg"]["max_epochs"] == 6
    assert cfg["optim_wrapper"]["optimizer"]["lr"] == 0.01
    assert cfg["auto_scale_lr"] == dict(enable=True, base_batch_size=8)
    assert decisions[0].startswith("schedule: kd_det's 1x for COCO, 6 epochs, SGD")
    assert ("trains by iterations" in " ".join(decisions)) == bool(student)


def test_a_learning_rate_without_a_batch_is_not_scaled():
    cfg, _ = made({k: v for k, v in ONE_X.items() if k != "auto_scale_lr"})
    assert cfg["auto_scale_lr"] == dict(enable=False)


def test_hooks_that_are_left_out_are_told():
    _, decisions = made(dict(ONE_X, custom_hooks=[dict(type="EMAHook")]))
    assert decisions[-1] == "hooks of the student's config are left out: EMAHook"


def test_no_epochs():
    with pytest.raises(ValueError, match="expected epochs >= 1, found 0"):
        made(ONE_X, 0)
