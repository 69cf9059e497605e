"""How long a training takes, from a few of its iterations."""

from __future__ import annotations

import copy

import pytest
import torch
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from small import digits_config, runner

from kd_det.pairing import cost
from kd_det.pairing.cost import Timing, time_training
from kd_det.pairing.dry_run import dry_run

TIMING = Timing(
    iterations=100, evaluations=4, val_batches=10, load=2.0, step=1.0, predict=0.5, workers=0
)


def test_the_whole_is_the_sum_of_what_is_repeated():
    # 100 (2 + 1) + 4 x 10 x 0.5
    assert TIMING.seconds() == 320
    assert TIMING.seconds(begun=0.25) == 240


@pytest.mark.parametrize(("workers", "iteration"), [(1, 2.0), (2, 1.0), (4, 1.0)])
def test_workers_load_while_others_compute(workers, iteration):
    assert Timing(100, 4, 10, 2.0, 1.0, 0.5, workers).iteration == iteration


@pytest.mark.parametrize(
    ("kind", "begin", "interval", "number"),
    # The last epoch is evaluated too.
    [
        (EpochBasedTrainLoop, 1, 5, 3),
        (EpochBasedTrainLoop, 6, 5, 2),
        (IterBasedTrainLoop, 1, 30, 4),
    ],
)
def test_evaluations_are_counted_as_a_loop_makes_them(kind, begin, interval, number):
    loop = kind.__new__(kind)
    loop._max_epochs, loop._max_iters = (12 if kind is EpochBasedTrainLoop else 1), 120
    loop.val_begin, loop.val_interval = begin, interval
    assert cost._evaluations(loop) == number


def test_a_slow_iteration_is_timed_once(monkeypatch):
    clock = iter([[20.0], [1.0]])
    monkeypatch.setattr(cost, "one_round", lambda *_: next(clock))
    assert cost._medians([print], 3, torch.device("cpu")) == [20.0]


@pytest.mark.parametrize("recipe", ["plain", "review_nd_kd"])
def test_a_dry_run_times_a_training_of_either_kind(digits, teacher_ckpt, tmp_path, recipe):
    cfg = digits_config(recipe, digits, tmp_path / "work")
    if recipe != "plain":
        cfg.model.teacher_ckpt = str(teacher_ckpt)
    cfg.train_cfg.max_epochs = 3
    timing = dry_run(cfg, timed=1)
    assert (timing.iterations, timing.evaluations, timing.val_batches) == (18, 3, 2)
    assert timing.step > timing.load > 0 and timing.predict > 0
    assert not (tmp_path / "work").exists()


def test_weights_stay_while_iterations_are_timed(digits, tmp_path):
    made = runner(digits_config("plain", digits, tmp_path / "work"))
    made._train_loop = made.build_train_loop(made._train_loop)
    made._val_loop = made.build_val_loop(made._val_loop)
    made.optim_wrapper = made.build_optim_wrapper(made.optim_wrapper)
    before = copy.deepcopy(dict(made.model.named_parameters()))
    time_training(made, 1)
    for name, value in made.model.named_parameters():
        assert torch.equal(value, before[name]), name


def test_a_model_as_it_was_built_can_be_the_teacher(digits, tmp_path):
    """Of a teacher that is not trained yet."""
    file = tmp_path / "weights.pth"
    dry_run(digits_config("teacher", digits, tmp_path / "work"), weights=str(file))
    cfg = digits_config("robust", digits, tmp_path / "work")
    cfg.model.teacher_ckpt = str(file)
    dry_run(cfg)
