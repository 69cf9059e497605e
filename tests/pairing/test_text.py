"""A config that is written says what differs, and is read as what was meant."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.config import Config

from kd_det.literals import ascii_source, read_assignments
from kd_det.pairing.text import find_changes, to_source, write_config

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats(allow_nan=False)
    | st.text("a'\"\\\n")
)
NAMES = st.sampled_from(["a", "b", "c", "type"])
DICTS = st.recursive(
    st.dictionaries(NAMES, LEAVES, max_size=3),
    lambda inner: st.dictionaries(
        NAMES, LEAVES | inner | st.lists(inner, max_size=2) | st.tuples(inner), max_size=4
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(base=DICTS, wanted=DICTS)
def test_base_and_difference_make_what_was_wanted(base, wanted):
    # At the top nothing can be taken away.
    wanted = {**base, **wanted}
    changes = find_changes(base, wanted)
    merged = Config._merge_a_into_b(Config(changes)._cfg_dict, Config(base)._cfg_dict)
    assert merged.to_dict() == wanted


@pytest.mark.parametrize(
    ("base", "wanted", "said"),
    [
        (dict(a=1, b=dict(c=2, d=3)), dict(a=1, b=dict(c=2, d=4)), dict(b=dict(d=4))),
        (dict(b=dict(c=2)), dict(b=dict(d=2)), dict(b=dict(_delete_=True, d=2))),
        (dict(b=None), dict(b=dict(d=2)), dict(b=dict(_delete_=True, d=2))),
        (dict(b=1), dict(b=True), dict(b=True)),
        (dict(b=[1]), dict(b=(1,)), dict(b=(1,))),
        (dict(b=dict(c=1)), dict(b=dict(c=1)), dict()),
    ],
)
def test_difference_by_hand(base, wanted, said):
    assert find_changes(base, wanted) == said


@settings(max_examples=150, deadline=None)
@given(DICTS)
def test_source_is_python_for_its_value(value):
    assert eval(to_source(value)) == value


def test_source_is_short_and_readable():
    assert to_source(dict(type="A", sizes=(1,), n=float("inf"))) == (
        'dict(type="A", sizes=(1,), n=float("inf"))'
    )
    assert to_source({"lambda": 1, "0": None}) == '{"lambda": 1, "0": None}'
    long = to_source(dict(first="x" * 60, second=["y" * 40]))
    assert long == f'dict(\n    first="{"x" * 60}",\n    second=["{"y" * 40}"],\n)'
    with pytest.raises(TypeError, match="a config can hold literals, found <built-in function len"):
        to_source(dict(a=len))


def test_written_files_derive_and_share_what_test_and_val_share(tmp_path):
    base = tmp_path / "base.py"
    base.write_text("val_dataloader = dict(a=1)\ntest_dataloader = val_dataloader\nb = 2\n")
    loader = dict(a=3)
    wanted = dict(val_dataloader=loader, test_dataloader=dict(loader), b=2)
    write_config(tmp_path / "made.py", [base], wanted, ["x " * 80])
    lines = (tmp_path / "made.py").read_text().splitlines()
    assert all(len(line) <= 100 for line in lines)
    assert lines[-2:] == ["val_dataloader = dict(a=3)", "test_dataloader = val_dataloader"]
    assert Config.fromfile(tmp_path / "made.py").to_dict() == wanted


def test_what_cannot_be_said_is_told(tmp_path):
    base = tmp_path / "base.py"
    base.write_text("a = 1\nb = 2\n")
    made = tmp_path / "made.py"
    with pytest.raises(ValueError, match="keys of the bases cannot be removed, missing: b"):
        write_config(made, [base], dict(a=1))
    assert not made.exists()
    # Not equal to itself.
    with pytest.raises(ValueError, match=r"made\.py .*, but reads back with other values of: a"):
        write_config(made, [base], dict(a=float("nan"), b=2))


def test_names_of_files_in_any_encoding_are_read_back(tmp_path):
    # As Python reads the name of a folder of fruit where the locale is not UTF-8.
    name = "水果".encode().decode("ascii", "surrogateescape")
    wanted = dict(data_root=name, classes=("水果", "père"), names={"груша": "\\水"})
    made = tmp_path / "水果" / "made.py"
    write_config(made, [], wanted, [f"images of {name} and 水果"])
    assert Config.fromfile(made).to_dict() == wanted and made.read_bytes().isascii()
    derived = tmp_path / "derived.py"
    write_config(derived, [made], {**wanted, "more": 1})
    assert Config.fromfile(derived).to_dict() == {**wanted, "more": 1}
    assert derived.read_bytes().isascii()


def test_source_is_escaped_where_it_can_be():
    for value in ("梨", "\\梨", {"梨": "\udce6"}):
        escaped = ascii_source(f"a = {value!r}  # 梨\n")
        assert escaped.isascii() and read_assignments(escaped) == {"a": value}
    name = "a = dict(梨=1)\n"
    assert ascii_source(name) == name
