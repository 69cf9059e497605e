"""Scheduled loss weights: the schedules, and real trainings with them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.runner import Runner

from kd_det import LossWeightHook
from kd_det.hooks.schedule import WeightSchedule

# The schedules


HALF = 0.5**0.5 / 2
# Factors of the first epochs. Warm-up is mdistiller's, which counts epochs from 1.
SCHEDULES: list[tuple[dict, list[float]]] = [
    (dict(warmup=1), [1, 1]),
    (dict(warmup=4), [0.25, 0.5, 0.75, 1, 1]),
    (dict(cosine=(1, 5)), [1, 1, 0.5 + HALF, 0.5, 0.5 - HALF, 0, 0]),
    (dict(steps=[2, 4], gamma=0.1), [1, 1, 0.1, 0.1, 0.01, 0.01]),
    (dict(stop=3), [1, 1, 1, 0, 0]),
    (dict(warmup=4, cosine=(0, 4), steps=[1], gamma=0.5, stop=3),
     [0.25, 0.5 * (0.5 + HALF) * 0.5, 0.75 * 0.5 * 0.5, 0, 0]),
]  # fmt: skip


@pytest.mark.parametrize(("config", "factors"), SCHEDULES)
def test_factors_of_the_epochs(config, factors):
    schedule = WeightSchedule(**config)
    found = [schedule.factor(over) for over in range(len(factors))]
    assert found == pytest.approx(factors, abs=1e-15)


def test_continuous_meets_stepwise_at_the_end_of_each_epoch():
    stepwise = WeightSchedule(warmup=3)
    continuous = WeightSchedule(warmup=3, continuous=True)
    found = []
    for i in range(16):
        time = (i, i // 4, i % 4, 4)
        found.append(continuous.factor(*continuous.time(*time)))
        step = stepwise.factor(*stepwise.time(*time))
        assert found[-1] <= step
        assert (found[-1] == pytest.approx(step)) == (i % 4 == 3 or i >= 12)
    assert found[:12] == pytest.approx([(i + 1) / 12 for i in range(12)])


@pytest.mark.parametrize("continuous", [False, True])
def test_loops_that_count_iterations_alone_have_epochs_too(continuous):
    schedule = WeightSchedule(warmup=3, continuous=continuous)
    for i in range(16):
        assert schedule.time(i, 0, i, 4) == schedule.time(i, i // 4, i % 4, 4)


def test_iterations_are_counted_over_epochs():
    schedule = WeightSchedule(warmup=8, by_epoch=False)
    assert schedule.factor(*schedule.time(5, 1, 1, 4)) == 6 / 8


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (dict(), "at least one of warmup, cosine, steps and stop"),
        (dict(gamma=0.5), "at least one of"),
        (dict(warmup=0), "expected warmup > 0, found 0"),
        (
            dict(cosine=(5, 5)),
            r"expected cosine=\(begin, end\) with 0 <= begin < end, found \(5, 5\)",
        ),
        (dict(cosine=(-1, 5)), "0 <= begin < end"),
        (dict(cosine=5), "schedule of 'loss_kd'"),
        (dict(steps=3), "expected a list of steps, found 3"),
        (dict(warmup=2, by_epoch=False, continuous=True), "fractions of epochs, but by_epoch is"),
        (dict(warm_up=2), r"expected options among \['warmup', .*, found \['warm_up'\]"),
    ],
)
def test_schedules_that_make_no_sense_are_errors(config, message):
    with pytest.raises(ValueError, match=message):
        LossWeightHook(schedules=dict(loss_kd=config))


# In a real run


def weighted(**schedules: dict) -> dict:
    return dict(type="kd_det.LossWeightHook", schedules=schedules)


def scalars(run: Runner, name: str) -> list[float]:
    return run.message_hub.get_scalar(f"train/{name}").data[0].tolist()


def test_factors_multiply_the_losses_and_are_logged(make):
    """With a learning rate of zero, the factors are all that tells two runs apart."""
    still = {"optim_wrapper.optimizer.lr": 0.0, "train_cfg.max_epochs": 2}
    plain = make("plain", **still)
    plain.train()
    run = make(
        "work",
        weighted(
            loss_kd=dict(warmup=4),
            loss_review=dict(warmup=8, by_epoch=False),
            loss_nd=dict(stop=1),
        ),
        **still,
    )
    run.train()
    factors = {
        "loss_kd": [0.25, 0.25, 0.5, 0.5],
        "loss_review": [1 / 8, 2 / 8, 3 / 8, 4 / 8],
        "loss_nd": [1, 1, 0, 0],
    }
    assert len(run.watch.losses) == 4
    for name, expected in factors.items():
        assert scalars(run, f"weight/{name}") == expected
        for with_hook, without, factor in zip(run.watch.losses, plain.watch.losses, expected):
            key = f"distill.{name}"
            assert without[key] > 0
            assert with_hook[key] == pytest.approx(factor * without[key], rel=1e-6)
    (log,) = Path(run.work_dir).glob("*/vis_data/scalars.json")
    assert '"weight/loss_kd": 0.25' in log.read_text()
    # Nothing stays behind.
    assert not run.model._forward_hooks


def test_loss_of_factor_zero_stays_in_the_graph(make):
    run = make("work", weighted(loss_review=dict(stop=0), loss_kd=dict(stop=0)))
    seen = []

    def keep(*_: object) -> None:
        connectors = run.model.distiller.connectors
        seen.append([p.grad for p in connectors.parameters()])

    assert run.train_loop.iter == 0
    run.optim_wrapper = run.build_optim_wrapper(run.optim_wrapper)
    run.optim_wrapper.optimizer.register_step_pre_hook(keep)
    run.train()
    assert len(seen) == 2
    assert all(grad is not None and not grad.any() for grads in seen for grad in grads)


def test_resumed_run_equals_one_that_was_not_stopped(make, train_until):
    hook = weighted(
        loss_kd=dict(warmup=3),
        loss_review=dict(cosine=(1, 3), continuous=True),
        loss_nd=dict(steps=[3], by_epoch=False),
    )
    epochs = {"train_cfg.max_epochs": 3}
    whole = make("whole", hook, **epochs)
    whole.train()
    killed = make("killed", hook, **epochs)
    train_until(killed, 4)
    resumed = make("killed", hook, resume=True, **epochs)
    resumed.train()
    assert len(resumed.watch.losses) == 2
    assert resumed.watch.losses == whole.watch.losses[4:]
    for name in ("loss_kd", "loss_review", "loss_nd"):
        factors = scalars(whole, f"weight/{name}")
        assert len(set(factors)) > 1
        assert scalars(resumed, f"weight/{name}") == factors
    state = whole.model.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in resumed.model.state_dict().items())


def test_its_factors_come_on_top_of_a_balance(make):
    balance = dict(type="kd_det.LossBalanceHook", share=0.3)
    few = {"train_dataloader.dataset.indices": 4}
    alone = make("alone", balance, **few)
    alone.train()
    both = make("both", weighted(loss_kd=dict(warmup=4, by_epoch=False)), balance, **few)
    both.train()
    assert scalars(both, "scale/loss_kd") == scalars(alone, "scale/loss_kd")
    key = "distill.loss_kd"
    assert both.watch.losses[0][key] == pytest.approx(0.25 * alone.watch.losses[0][key])


def test_names_that_do_not_exist_or_come_twice_are_errors(make):
    run = make("work")
    with pytest.raises(ValueError, match=r"'loss_dk' is no distillation loss.*'loss_kd'"):
        LossWeightHook(dict(loss_dk=dict(warmup=2))).before_train(run)
    for steps in (2, 3):
        run.register_hook(LossWeightHook(dict(loss_kd=dict(steps=[steps]))))
    with pytest.raises(ValueError, match=r"two LossWeightHooks have a schedule of \['loss_kd'\]"):
        run.call_hook("before_train")
