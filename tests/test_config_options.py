"""Entries of a config are overridden by dotted keys that have a place in it."""

from __future__ import annotations

import pytest
from mmengine.config import Config

from kd_det.config_options import merge_options
from kd_det.errors import InvalidInputError


@pytest.fixture
def cfg() -> Config:
    return Config(
        dict(
            default_scope="mmdet",
            model=dict(type="FasterRCNN", rpn_head=None, train_cfg=dict(rcnn=dict(num=1))),
            train_cfg=dict(max_epochs=3),
            pipeline=[dict(type="A"), dict(type="B", scale=(1, 2))],
            sizes=(4, 8),
            default_hooks=dict(checkpoint=dict(interval=1)),
        )
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train_cfg.max_epochs", 12),
        ("pipeline.1.scale", (3, 4)),
        ("pipeline.0", dict(type="C")),
        ("pipeline", [dict(type="C")]),
        ("model.data_preprocessor.mean", [1.0]),  # a new dict inside what the class takes
        ("default_hooks.teacher_accuracy", None),
        ("model.train_cfg.rcnn.any.thing", 1),
        ("randomness.seed", 0),
        ("custom_hooks", [dict(type="EMAHook")]),
        ("find_unused_parameters", True),
    ],
)
def test_it_is_overridden(cfg, key, value):
    merge_options(cfg, {key: value})
    found = cfg
    for name in key.split("."):
        found = found[int(name) if name.isdigit() else name]
    assert found == value


def test_parts_of_a_list_stay_a_list(cfg):
    merge_options(cfg, {"pipeline.1.type": "D", "pipeline.0.new": 1})
    assert cfg.pipeline == [dict(type="A", new=1), dict(type="D", scale=(1, 2))]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("pipeline.2.type", "pipeline.2.type: pipeline is a list of 2; expected an index below"),
        ("pipeline.type", "pipeline is a list of 2; expected an index below that, found 'type'"),
        ("custom_hooks.0.type", "the config has no list custom_hooks; set it as a whole"),
        ("train_cfg.dynamic.0.a", "no list train_cfg.dynamic; set it as a whole"),
        ("train_cfg.max_epochs.x", "train_cfg.max_epochs is 3, which has no 'x'"),
        ("trian_cfg.max_epochs", "a config has no 'trian_cfg'; expected one of train_cfg"),
        ("model.student.x", "model has no 'student'; expected one of backbone, "),
        ("model.necks.x", "model has no 'necks'; expected one of neck"),
    ],
)
def test_what_has_no_place_is_told(cfg, key, message):
    before = cfg.to_dict()
    with pytest.raises(InvalidInputError) as caught:
        merge_options(cfg, {key: 1})
    assert message in str(caught.value)
    assert cfg.to_dict() == before


def test_options_of_an_algorithm_of_ours_are_known(cfg):
    cfg.model = dict(type="kd_det.RoITeacherDistill")
    merge_options(cfg, {"model.speed.channels_last": True, "model.teacher_ckpt": "t.pth"})
    with pytest.raises(InvalidInputError, match="expected one of teacher"):
        merge_options(cfg, {"model.teacher_chkpt": "t.pth"})


def test_a_model_of_an_unknown_class_may_have_any(cfg):
    cfg.model = dict(type="NobodyKnowsIt")
    merge_options(cfg, {"model.x": 1})
    assert cfg.model.x == 1
