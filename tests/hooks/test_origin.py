"""Digests of objects: they change with what matters, and with nothing else."""

from __future__ import annotations

import logging
import random
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.models import DetDataPreprocessor
from mmengine.config import ConfigDict

from kd_det.hooks._origin import digest


def made(**more: object) -> SimpleNamespace:
    """An object with values of many kinds, new at each call."""
    content = dict(
        number=1,
        text="a",
        options=dict(b=[1, 2.5], a=(None, True)),
        array=np.arange(4),
        scalar=np.float32(0.5),
        tensor=torch.ones(2, dtype=torch.bfloat16),
        kind=np.ndarray,
        function=digest,
        call=partial(digest, 1),
        names={"x", "y"},
        inner=SimpleNamespace(flag=False, raw=b"ab"),
        random=random.Random(3),
        logger=logging.getLogger("one"),
    )
    return SimpleNamespace(**{**content, **more})


def test_equal_objects_have_one_digest():
    assert digest(made()) == digest(made())
    others = made(random=random.Random(4), logger=logging.getLogger("two"))
    assert digest(made()) == digest(others)
    assert digest(ConfigDict(a=dict(b=1))) == digest(dict(a=dict(b=1)))


@pytest.mark.parametrize(
    "change",
    [
        dict(number=2),
        dict(text="b"),
        dict(options=dict(b=[1, 2.5], a=(None, False))),
        dict(array=np.arange(4) + 1),
        dict(array=np.arange(4).reshape(2, 2)),
        dict(array=np.array(["a", None], dtype=object)),
        dict(scalar=np.float32(0.25)),
        dict(tensor=torch.full((2,), 2, dtype=torch.bfloat16)),
        dict(kind=np.generic),
        dict(function=made),
        dict(call=partial(made, 1)),
        dict(names={"x", "z"}),
        dict(inner=SimpleNamespace(flag=True, raw=b"ab")),
        dict(inner=SimpleNamespace(flag=False, raw=b"ac")),
        dict(one_more=None),
    ],
)
def test_each_change_has_another(change):
    assert digest(made(**change)) != digest(made())


def test_objects_that_hold_themselves_and_each_other():
    first, second = SimpleNamespace(n=1), SimpleNamespace(n=2)
    first.other, second.other, first.all = second, first, [first, second, first]
    found = digest(first)
    second.n = 3
    assert digest(first) != found


def test_data_preprocessors_count_by_their_options_and_not_by_mode_or_hooks():
    options = dict(mean=[1.0] * 3, std=[2.0] * 3, bgr_to_rgb=True, pad_size_divisor=32)
    one, same = (DetDataPreprocessor(**options) for _ in range(2))
    same.eval().register_forward_hook(lambda *_: None)
    assert digest(one) == digest(same)
    for change in (dict(mean=[3.0] * 3), dict(bgr_to_rgb=False), dict(pad_size_divisor=1)):
        assert digest(DetDataPreprocessor(**{**options, **change})) != digest(one)
