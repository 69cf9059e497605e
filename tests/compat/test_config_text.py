"""The text of a config is formatted once, and is what MMEngine makes of it."""

from __future__ import annotations

from types import SimpleNamespace

from mmengine.config import Config, config

import kd_det  # noqa: F401  (mends mmengine)
from kd_det.compat import config_text


def test_text_is_the_same_and_follows_changes():
    cfg = Config(dict(a=dict(b=[1, 2, 3], c="x" * 90, d=dict(e=1.5, f=("y" * 30, "z" * 30)))))
    text = cfg.pretty_text
    plain = config.FormatCode.__wrapped__
    raw = object.__getattribute__(cfg, "_cfg_dict").to_dict()
    style = dict(
        based_on_style="pep8",
        blank_line_before_nested_class_or_def=True,
        split_before_expression_after_opening_paren=True,
    )
    assert text == plain(text, style_config=style)[0]
    assert "\n" in text.strip() and Config.fromstring(text, ".py").to_dict() == raw
    assert cfg.pretty_text == text
    cfg.a.b = [4]
    assert Config.fromstring(cfg.pretty_text, ".py").a.b == [4]


def test_the_same_text_is_formatted_once():
    calls = []

    def format_code(text, style_config, verify=False):
        calls.append((text, verify))
        return text.upper(), True

    module = SimpleNamespace(FormatCode=format_code)
    config_text._wrap(module)
    style = dict(based_on_style="pep8")
    for _ in range(3):
        assert module.FormatCode("a = 1", style_config=style) == ("A = 1", True)
    module.FormatCode("a = 1", style_config=style, verify=True)
    module.FormatCode("b = 1", style_config=style)
    assert calls == [("a = 1", False), ("a = 1", True), ("b = 1", False)]
    wrapped = module.FormatCode
    config_text._wrap(module)
    assert module.FormatCode is wrapped
