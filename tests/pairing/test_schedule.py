"""The student's schedule, brought to another length."""

from __future__ import annotations

import copy

import pytest
import torch
from mmengine.optim import LinearLR
from mmengine.registry import PARAM_SCHEDULERS, DefaultScope

from kd_det.errors import InvalidInputError
from kd_det.pairing.schedule import set_length

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


PHASES = [
    dict(type="QuadraticWarmupLR", begin=0, end=5, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", begin=5, T_max=285, end=285, convert_to_iter_based=True),
    dict(type="ConstantLR", factor=1, begin=285, end=300),
]


def made(
    recipe: dict, epochs: int | None = None, images: int | None = None, batch: int = 2, **more
):
    cfg = copy.deepcopy(dict(recipe, train_dataloader=dict(batch_size=batch)))
    return cfg, set_length(cfg, epochs, images, **more)


def test_without_a_length_nothing_changes():
    cfg, decisions = made(ONE_X)
    assert {key: cfg[key] for key in ONE_X} == ONE_X
    assert decisions == [
        "12 epochs, AdamW with learning rate 0.0001 for a batch of 8; --auto-scale-lr scales it to "
        "that of the run"
    ]
    _, (said,) = made(dict(ONE_X, auto_scale_lr=dict(enable=True, base_batch_size=8)))
    assert said.endswith("for a batch of 8, scaled to that of the run")


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


def test_warm_up_takes_a_tenth_of_training_at_most():
    # 12 epochs of 50 steps.
    cfg, decisions = made(ONE_X, images=99)
    assert cfg["param_scheduler"][0]["end"] == 60
    assert "warm-up of 500 iterations shortened to 60, a tenth of training" in decisions
    in_the_new_style = [dict(ONE_X["param_scheduler"][0], type=LinearLR)]
    cfg, _ = made(dict(ONE_X, param_scheduler=in_the_new_style), images=99)
    assert cfg["param_scheduler"][0]["end"] == 60
    cfg, decisions = made(ONE_X, images=10000)
    assert cfg["param_scheduler"][0]["end"] == 500 and len(decisions) == 1


def test_what_begins_at_the_end_of_warm_up_goes_on_doing_so():
    later = dict(type="PolyLR", by_epoch=False, begin=500, end=1200)
    recipe = dict(ONE_X, param_scheduler=[ONE_X["param_scheduler"][0], later])
    cfg, _ = made(recipe, epochs=1, images=200)
    warm_up, later = cfg["param_scheduler"]
    assert (warm_up["end"], later["begin"], later["end"]) == (10, 10, 100)


def rates(cfg: dict, per_epoch: int) -> list[float]:
    """The learning rate of every iteration, as MMEngine's Runner steps the schedulers."""
    import mmdet.engine  # noqa: F401  (registers YOLOX's warm-up)

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    epochs = cfg["train_cfg"].get("max_epochs", 1)
    total = cfg["train_cfg"].get("max_iters") or epochs * per_epoch
    with DefaultScope.overwrite_default_scope("mmdet"):
        built = []
        for each in cfg["param_scheduler"]:
            default = epochs if each.get("by_epoch", True) else total
            built.append(
                PARAM_SCHEDULERS.build(
                    dict(dict(end=default), **each),
                    default_args=dict(optimizer=optimizer, epoch_length=per_epoch),
                )
            )
    found = []
    for iteration in range(total):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        last = (iteration + 1) % per_epoch == 0
        for scheduler in built:
            if not scheduler.by_epoch or last:
                scheduler.step()
    return found


@pytest.mark.parametrize("total", [2, 4, 19, 30])
def test_the_shortest_warm_up_ends_with_the_full_rate(total):
    cfg, decisions = made(ONE_X, epochs=1, images=total, batch=1)
    found = rates(dict(cfg, param_scheduler=cfg["param_scheduler"][:1]), total)
    assert found[0] < 1 and found[-1] == pytest.approx(1)
    assert "shortened to" in decisions[1]


@pytest.mark.parametrize(
    "phases",
    [
        PHASES,
        [
            dict(type="LinearLR", start_factor=0.1, begin=0, end=2),
            dict(type="MultiStepLR", begin=2, end=300, milestones=[100, 200]),
        ],
    ],
)
@pytest.mark.parametrize("images", [None, 3, 40])
@pytest.mark.parametrize("epochs", [1, 2, 12, 300])
def test_phases_never_collapse(phases, images, epochs):
    recipe = dict(ONE_X, train_cfg=dict(max_epochs=300), param_scheduler=phases)
    cfg, _ = made(recipe, epochs, images, batch=1)
    per_epoch = images or 50
    for each in cfg["param_scheduler"]:
        assert each["begin"] < each["end"] <= epochs, each
    found = rates(cfg, per_epoch)
    # Warm-up has an end, and is no longer than it was in the recipe or needs to be.
    assert max(found) > 0.8 and found[0] < 0.7
    if epochs * per_epoch >= 80:
        assert max(found[: len(found) // 10]) == pytest.approx(1, abs=0.1)


def test_loops_and_hooks_that_act_at_an_epoch_are_scaled():
    recipe = dict(
        ONE_X,
        train_cfg=dict(max_epochs=300, val_interval=10, val_begin=30, dynamic_intervals=[(280, 1)]),
        default_hooks=dict(checkpoint=dict(type="CheckpointHook", interval=10), timer=None),
        custom_hooks=[
            dict(type="EMAHook", begin_epoch=30),
            dict(type="mmdet.engine.hooks.PipelineSwitchHook", switch_epoch=280),
        ],
    )
    cfg, decisions = made(recipe, 3)
    assert cfg["train_cfg"] == dict(
        max_epochs=3, val_interval=3, val_begin=1, dynamic_intervals=[(3, 1)]
    )
    assert cfg["default_hooks"]["checkpoint"]["interval"] == 3
    ema, switch = cfg["custom_hooks"]
    # The last epoch is that of the second pipeline, of which 300 had 20.
    assert (ema["begin_epoch"], switch["switch_epoch"]) == (1, 2)
    assert "PipelineSwitchHook: switch_epoch 280 becomes 2" in decisions


BY_ITERATION = dict(
    train_cfg=dict(type="IterBasedTrainLoop", max_iters=90000, val_interval=10000),
    param_scheduler=[
        dict(type="LinearLR", by_epoch=False, begin=0, end=1000),
        dict(type="MultiStepLR", by_epoch=False, begin=0, end=90000, milestones=[60000, 80000]),
    ],
    optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1)),
    default_hooks=dict(checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=10000)),
    custom_hooks=[dict(type="EMAHook", begin_iter=900)],
)


def test_a_loop_of_iterations_is_scaled_to_epochs():
    cfg, decisions = made(BY_ITERATION, epochs=9, images=200)
    assert cfg["train_cfg"] == dict(type="IterBasedTrainLoop", max_iters=900, val_interval=100)
    warm_up, steps = cfg["param_scheduler"]
    assert steps["milestones"] == [600, 800] and steps["end"] == 900 and warm_up["end"] == 90
    assert cfg["default_hooks"]["checkpoint"]["interval"] == 100
    assert cfg["custom_hooks"][0]["begin_iter"] == 9
    assert decisions[0] == "900 iterations, SGD with learning rate 0.1"
    with pytest.raises(InvalidInputError, match=r"trains by iterations.*max_iters"):
        made(BY_ITERATION, epochs=9)
    assert {**made(BY_ITERATION)[0], **BY_ITERATION} == made(BY_ITERATION)[0]
    with pytest.raises(InvalidInputError, match="expected epochs >= 1, found 0"):
        made(ONE_X, 0)


def test_schedulers_by_iteration_in_a_loop_of_epochs():
    steps = dict(type="MultiStepLR", by_epoch=False, milestones=[60000, 80000])
    cycle = dict(type="OneCycleLR", by_epoch=False, eta_max=0.1, total_steps=90000)
    # Of the same data: with the length.
    cfg, _ = made(dict(ONE_X, param_scheduler=steps), 6)
    assert cfg["param_scheduler"]["milestones"] == [30000, 40000]
    # Twice the images in a step: half the steps.
    cfg, _ = made(dict(ONE_X, param_scheduler=[steps]), batch=4, own_batch=2)
    assert cfg["param_scheduler"][0]["milestones"] == [30000, 40000]
    # Of other data: with the number of iterations, where the recipe says its own.
    other = dict(epochs=6, images=100, same_data=False)
    cfg, _ = made(dict(ONE_X, param_scheduler=[cycle]), **other)
    assert cfg["param_scheduler"][0]["total_steps"] == 300
    cfg, decisions = made(dict(ONE_X, param_scheduler=[steps]), **other)
    assert cfg["param_scheduler"] == [steps]
    assert "MultiStepLR counts by iteration" in decisions[1] and "has 300" in decisions[1]
