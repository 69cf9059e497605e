"""Transforms of losses act in the order of their stages, and leave nothing behind."""

from __future__ import annotations

import copy

import torch
from torch import nn

from kd_det.hooks._loss_transforms import Stage, transform_losses


class Model(nn.Module):
    """Returns losses or predictions."""

    def forward(self, predict: bool = False) -> dict | list:
        return ["prediction"] if predict else {"loss": torch.ones(1)}


def test_stages_decide_and_not_who_came_first():
    model, order = Model(), []

    def at(stage: Stage, name: str):
        def transform(losses: dict) -> dict:
            order.append(name)
            return {**losses, name: len(order)}

        return transform_losses(model, stage, transform)

    handles = [at(Stage.CHECK, "check"), at(Stage.WEIGHT, "first"), at(Stage.BALANCE, "balance"),
               at(Stage.WEIGHT, "second")]  # fmt: skip
    assert len(model._forward_hooks) == 1
    found = model()
    assert order == ["balance", "first", "second", "check"]
    assert list(found) == ["loss", *order]
    handles[1].remove()
    handles[1].remove()
    order.clear()
    model()
    assert order == ["balance", "second", "check"]
    for handle in handles:
        handle.remove()
    assert list(model()) == ["loss"]
    assert not model._forward_hooks and vars(model).keys() == vars(Model()).keys()


def test_predictions_and_evaluation_are_left_alone():
    model = Model()
    transform_losses(model, Stage.WEIGHT, lambda losses: {})
    assert model(predict=True) == ["prediction"]
    with torch.no_grad():
        assert list(model()) == ["loss"]
    assert model() == {}


def test_a_copy_of_the_model_is_one_of_its_own():
    model, seen = Model(), []
    handle = transform_losses(model, Stage.WEIGHT, lambda losses: seen.append(1) or losses)
    other = copy.deepcopy(model)
    handle.remove()
    other()
    assert seen == [1]
    model()
    assert seen == [1]
