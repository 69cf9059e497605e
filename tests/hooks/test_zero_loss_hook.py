"""A warning after the first iterations names losses that did nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from small import digits_config, runner

from kd_det.hooks import ZeroLossHook

HOOK = dict(type="kd_det.ZeroLossHook", iterations=3)


def test_losses_that_stay_zero_are_named_once(make):
    schedules = dict(loss_review=dict(stop=1))
    weights = dict(type="kd_det.LossWeightHook", schedules=schedules)
    options = {
        "model.distiller.distill_losses.loss_kd.loss_weight": 0.0,
        "train_cfg.max_epochs": 2,
    }
    run = make("work", HOOK, weights, **options)
    run.train()
    (log,) = Path(run.log_dir).glob("*.log")
    warnings = [
        line for line in log.read_text().splitlines() if "in the first 3 iterations" in line
    ]
    (line,) = warnings
    assert line.endswith(
        "WARNING - loss_kd was 0 in the first 3 iterations; since its loss_weight is 0 in "
        "the config"
    )


def test_it_wants_a_distillation(digits, tmp_path):
    cfg = digits_config("plain", digits, tmp_path)
    cfg.custom_hooks = [HOOK]
    with pytest.raises(ValueError, match="ZeroLossHook needs a distillation model"):
        runner(cfg).train()
    with pytest.raises(ValueError, match="expected iterations >= 1, found 0"):
        ZeroLossHook(0)
