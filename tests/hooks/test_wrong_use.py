"""Options that no hook has, and models that a hook cannot work with, are told in a sentence."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from torch import nn

from kd_det import ClassCenterHook, LossBalanceHook, LossWeightHook, TeacherAccuracyHook
from kd_det.hooks import EmbeddingMonitorHook, FiniteLossHook

SCHEDULE = dict(loss_kd=dict(stop=1))


@pytest.mark.parametrize(
    ("hook", "options", "error", "message"),
    [
        (ClassCenterHook, dict(rois="all"), ValueError, "rois 'sampled' or 'gt', found 'all'"),
        (ClassCenterHook, dict(max_images=0), ValueError, "expected max_images >= 1, found 0"),
        (
            ClassCenterHook,
            dict(file="no/centers.safetensors"),
            FileNotFoundError,
            r"no/centers.safetensors.*collect_centers",
        ),
        (EmbeddingMonitorHook, dict(interval=0), ValueError, "expected interval >= 1, found 0"),
        (FiniteLossHook, dict(policy="ignore"), ValueError, "policy to be one of .*'ignore'"),
        (FiniteLossHook, dict(limit=-1), ValueError, "and limit >= 0, found 'stop' and -1"),
        (
            LossBalanceHook,
            dict(share=dict(loss_kd=0)),
            ValueError,
            "a share above 0 for 'loss_kd', found 0",
        ),
        (LossBalanceHook, dict(share=1, momentum=0), ValueError, r"momentum in \(0, 1\], found 0"),
        (LossBalanceHook, dict(share=1, interval=0), ValueError, "expected interval >= 1, found 0"),
        (LossWeightHook, dict(schedules={}), ValueError, "at least one loss"),
    ],
)
def test_wrong_options(hook, options, error, message):
    with pytest.raises(error, match=message):
        hook(**options)


@pytest.mark.parametrize(
    "hook",
    [
        ClassCenterHook(),
        EmbeddingMonitorHook(),
        LossBalanceHook(share=1),
        LossWeightHook(SCHEDULE),
        TeacherAccuracyHook(),
    ],
    ids=lambda hook: type(hook).__name__,
)
def test_a_model_that_is_no_distillation(hook):
    run = SimpleNamespace(iter=0, model=nn.Linear(1, 1), hooks=[])
    with pytest.raises(ValueError, match=r"needs a distillation model.*found Linear"):
        hook.before_train(run)
