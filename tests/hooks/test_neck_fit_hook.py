"""The student's FPN is fitted before the first iteration, and nothing else changes."""

from __future__ import annotations

import copy

import pytest
import torch

from kd_det import NeckFitHook
from kd_det.algorithms import WiringError

ASKED = dict(type="kd_det.NeckFitHook", max_images=6)
START = ["neck", "rpn_head", "roi_head"]


@pytest.fixture
def fitted(make):
    """Makes a Runner with the hook, whose weights are initialised."""

    def fitted(name: str = "fitted", **options: object):
        options = {"model.init_student_from_teacher": START, **options}
        run = make(name, ASKED, **options)
        assert run.train_loop.iter == 0
        return run

    return fitted


def state(run) -> dict[str, torch.Tensor]:
    return copy.deepcopy(run.model.state_dict())


def hook_of(run) -> NeckFitHook:
    return next(hook for hook in run.hooks if isinstance(hook, NeckFitHook))


def changed(run, before: dict[str, torch.Tensor]) -> set[str]:
    return {k for k, v in run.model.state_dict().items() if not torch.equal(v, before[k])}


def test_only_lateral_convolutions_change(fitted, caplog):
    run = fitted()
    run.model.init_weights()
    run.model.train()
    before = state(run)
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    run.logger.addHandler(caplog.handler)
    hook_of(run).before_train(run)
    assert torch.equal(torch.rand(1), expected)
    names = {
        f"architecture.neck.lateral_convs.{level}.conv.{name}"
        for level in range(4)
        for name in ("weight", "bias")
    }
    assert changed(run, before) == names
    assert run.model.student.backbone.training and run.model.student.neck.training
    assert "The student's FPN is fitted to the teacher's" in caplog.text


def test_the_fit_is_the_same_each_time(fitted):
    runs = [fitted("one"), fitted("two")]
    for run in runs:
        torch.manual_seed(0)
        run.model.init_weights()
        hook_of(run).before_train(run)
    assert changed(runs[0], state(runs[1])) == set()


@pytest.mark.parametrize("resumed", [True, False])
def test_weights_of_a_checkpoint_are_kept(fitted, tmp_path, resumed):
    run = fitted()
    if resumed:
        run.train_loop._iter = 1
    else:
        run._load_from = str(tmp_path / "any.pth")
    before = state(run)
    hook_of(run).before_train(run)
    assert changed(run, before) == set()


def test_a_pair_that_does_not_fit_is_refused(fitted):
    run = fitted(**{"model.architecture.neck.num_outs": 4})
    with pytest.raises(WiringError, match="the student's FPN has num_outs 4, the teacher's 5"):
        hook_of(run).before_train(run)


def test_a_number_of_images_is_asked_for():
    with pytest.raises(ValueError, match="expected max_images >= 1, found 0"):
        NeckFitHook(max_images=0)
