"""A config becomes plain dicts, also inside."""

from __future__ import annotations

LEFT_OUT = {
    "config_to_dict": """
from mmengine.config import Config
plain = Config(dict(a=dict(b=[dict(c=1)]))).to_dict()
kinds = {type(plain), type(plain["a"]), type(plain["a"]["b"][0])}
assert kinds == {dict}, "ConfigDicts inside"
assert plain == dict(a=dict(b=[dict(c=1)]))
"""
}
PATCHED = dict(LEFT_OUT)


def test_plain_at_every_depth(left_out, patched):
    """Newer mmengine needs no patch."""
    assert left_out["config_to_dict"] in (None, "AssertionError: ConfigDicts inside")
    assert patched["config_to_dict"] is None
