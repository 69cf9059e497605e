"""Hooks that reach into a detector find the student of a distillation."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
from mmengine.registry import DefaultScope
from small_dense import detector, pair

from kd_det.hooks import StudentHook
from kd_det.registry import HOOKS

HEAD = dict(type="ModuleOutputs", source="neck")


class Data:
    """A dataset that is told which transforms to leave out."""

    left_out: tuple[str, ...] = ()

    def update_skip_type_keys(self, names: tuple[str, ...]) -> None:
        self.left_out = names


@pytest.fixture
def runner() -> SimpleNamespace:
    model = pair(
        detector("yolox"),
        detector("yolox"),
        dict(
            student_recorders=dict(fpn=HEAD),
            teacher_recorders=dict(fpn=HEAD),
            distill_losses=dict(loss_cwd=dict(type="kd_det.CWDLoss")),
            loss_forward_mappings=dict(
                loss_cwd=dict(
                    s_feats=dict(recorder="fpn", from_student=True),
                    t_feats=dict(recorder="fpn", from_student=False),
                )
            ),
        ),
    )
    loader = SimpleNamespace(dataset=Data(), persistent_workers=False)
    return SimpleNamespace(
        model=model, train_dataloader=loader, epoch=3, max_epochs=5, logger=logging.getLogger()
    )


def build(**hook: object) -> StudentHook:
    with DefaultScope.overwrite_default_scope("mmdet"):
        return HOOKS.build(dict(type="kd_det.StudentHook", hook=hook))


def test_yolox_switches_the_head_of_the_student_alone(runner):
    hook = build(type="YOLOXModeSwitchHook", num_last_epochs=1)
    hook.before_train_epoch(runner)
    assert runner.model.student.bbox_head.use_l1
    assert not runner.model.teacher.bbox_head.use_l1
    assert runner.train_dataloader.dataset.left_out == ("Mosaic", "RandomAffine", "MixUp")


def test_the_student_is_told_the_epoch(runner):
    told: list[int] = []
    runner.model.student.set_epoch = told.append
    build(type="SetEpochInfoHook").before_train_epoch(runner)
    assert told == [3]


def test_only_the_stages_of_the_hook_are_called():
    assert build(type="YOLOXModeSwitchHook").get_triggered_stages() == ["before_train_epoch"]
    assert build(type="YOLOXModeSwitchHook").priority == "NORMAL"
