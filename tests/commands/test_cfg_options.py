"""``--cfg-options``: what its values mean, and that mistakes in them are told."""

from __future__ import annotations

import argparse

import pytest
from mmengine.config import DictAction

from kd_det.commands.cfg_options import CfgOptions


def parsed(*words: str, action: type[argparse.Action] = CfgOptions) -> dict:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cfg-options", nargs="+", action=action)
    return parser.parse_args(["--cfg-options", *words]).cfg_options


AS_MMENGINE = """
1 -0.5 1e-3 true None word a/b.pth a=b 1,2 a,b (1,2) (1) [1,2] [a,b] [(1,2),(3,4)] 'x' [true,1]
"""


@pytest.mark.parametrize("text", [*AS_MMENGINE.split(), "", "[(1, 2), [a, b], c]"])
def test_values_are_those_of_mmengine(text):
    assert parsed(f"a.b={text}") == parsed(f"a.b={text}", action=DictAction)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[dict(type='EMAHook', momentum=0.002)]", [dict(type="EMAHook", momentum=0.002)]),
        ("[{'type': 'EMAHook', 'begin': -1}]", [dict(type="EMAHook", begin=-1)]),
        ("dict(a=dict(b=[1, (2, None)]))", dict(a=dict(b=[1, (2, None)]))),
        ("['red apple','green pear']", ["red apple", "green pear"]),  # MMEngine drops spaces
        ("[float('inf')]", [float("inf")]),
    ],
)
def test_values_that_mmengine_cannot_read(text, value):
    assert parsed(f"a={text}") == {"a": value}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("train_cfg.max_epochs", "expected KEY=VALUE, found 'train_cfg.max_epochs'"),
        ("=1", "expected KEY=VALUE, found '=1'"),
        ("a..b=1", "expected KEY=VALUE, found 'a..b=1'"),
        ("a=[1,2", "a: cannot read '[1,2', the brackets do not match"),
        ("a=1,2)", "a: cannot read '1,2)', the brackets do not match"),
        ("a=[dict(type='x')", "a: cannot read \"[dict(type='x')\""),
        ("a=dict(b=open('x'))", "a: cannot read \"dict(b=open('x'))\""),
        ("a={1: 2", "a: cannot read '{1: 2'"),
    ],
)
def test_mistakes_are_told(word, message, capsys):
    with pytest.raises(SystemExit) as caught:
        parsed(word)
    assert caught.value.code == 2
    assert f"argument --cfg-options: {message}" in capsys.readouterr().err


def test_later_options_are_added():
    assert parsed("a=1", "b=2", "--cfg-options", "b=3") == dict(a=1, b=3)
