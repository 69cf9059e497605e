"""The matrix: what pip may add, how tests are counted, and the table's rows."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file
from small import ROOT

FOUND = dict(torch="2.1.2", numpy="1.26.4", mmdet="3.3.0", rich="13.4.2")


@pytest.fixture
def cells(benchmark):
    return benchmark("_cells")


def item(name: str, version: str) -> dict:
    return dict(metadata=dict(name=name, version=version))


def test_what_pip_would_do_is_judged(cells):
    report = dict(install=[item("kd_det", "1"), item("wrapt", "2"), item("numpy", "2.4")])
    plan = cells.planned(report)
    assert plan == {"kd-det": "1", "wrapt": "2", "numpy": "2.4"}
    assert cells.unwanted(plan, FOUND) == ["numpy 2.4 for 1.26.4"]
    # Not even a small need replaces what is there, and nothing of the stack is brought along.
    assert cells.unwanted({"rich": "15"}, FOUND) == ["rich 15 for 13.4.2"]
    assert cells.unwanted({"opencv-python": "5", "safetensors": "1"}, FOUND) == ["opencv-python 5"]


REPORT = """<testsuites><testsuite>
<testcase classname="tests.a" name="one"/>
<testcase classname="tests.a" name="two"><failure message="x">y</failure></testcase>
<testcase classname="tests.b" name="three"><error message="x">y</error></testcase>
<testcase classname="tests.b" name="four"><skipped message="no GPU"/></testcase>
<testcase classname="tests.b" name="five"><skipped message="no GPU"/></testcase>
<testcase classname="" name="tests.c"><skipped message="collection skipped">('/c.py', 9, 'Skipped: \
no onnx')</skipped></testcase>
</testsuite></testsuites>"""


def test_errors_are_failures_and_skips_have_reasons(cells, tmp_path):
    (tmp_path / "tests.xml").write_text(REPORT)
    assert cells.read_tests(tmp_path / "tests.xml") == dict(
        passed=1, failed=["tests.a::two", "tests.b::three"], skipped={"no GPU": 2, "no onnx": 1}
    )


def test_failed_tests_are_counted_anew(cells):
    before = dict(passed=7, failed=["tests.a.test_b::one", "tests.a.test_b::two"], skipped={})
    assert cells.files_of(before["failed"]) == ["tests/a/test_b.py"]
    again = dict(passed=3, failed=["tests.a.test_b::two"], skipped={})
    now = dict(passed=8, failed=["tests.a.test_b::two"], skipped={})
    assert cells.counted_anew(before, again) == now
    again["failed"].append("tests.a.test_b::three")  # passed before
    assert cells.counted_anew(before, again)["passed"] == 7
    assert cells.counted_anew(before, again)["failed"][1] == "tests.a.test_b::three"


def test_equal_weights_have_equal_digests(cells, tmp_path):
    def student(name: str, value: float) -> dict:
        folder = tmp_path / name
        folder.mkdir()
        save_file({"a": torch.tensor([value]), "b": torch.ones(2)}, folder / "model.safetensors",
                  metadata=dict(versions=name))  # fmt: skip
        metrics = {"coco/bbox_mAP": 0.25, "coco/bbox_mAP_50": 0.5}
        (folder / "metadata.json").write_text(json.dumps(dict(metrics=metrics)))
        return cells.read_student(folder)

    one, same, other = student("one", 1.0), student("same", 1.0), student("other", 1.0 + 1e-7)
    assert one == same and one["mAP"] == 0.25
    assert other["weights"] != one["weights"]


def test_a_row_for_each_cell(cells, tmp_path):
    def cell(name: str, **more: object) -> None:
        base = dict(cell=name, python="3.10.13", packages=FOUND, commit="abc", date="2026-01-01")
        (tmp_path / f"{name}.json").write_text(json.dumps({**base, **more}))

    tests = dict(selection="core", passed=7, failed=["a::b"], skipped={"no GPU": 2})
    pip = dict(plan={"kd-det": "1", "wrapt": "2"}, unwanted=[])
    cell("py3.10-torch2.4", tests=tests, pip=pip, digits=dict(mAP=0.1984))
    cell("py3.9-torch2.0", notes=["stopped"])
    names = ["py3.9-torch2.0", "py3.10-torch2.4", "py3.11-torch2.6"]
    lines = cells.table(tmp_path, names).splitlines()
    first, second, third = ([c.strip() for c in line.split("|")[1:-1]] for line in lines[2:5])
    assert first[0] == "py3.9-torch2.0" and first[7:12] == [""] * 5
    assert second[0] == "py3.10-torch2.4"
    assert second[7:12] == ["wrapt", "7 (core)", "1", "2", "0.198"]
    assert {"- py3.9-torch2.0: stopped", "- py3.10-torch2.4: failed: `a::b`"} <= set(lines)
    assert "- py3.10-torch2.4: skipped 2: no GPU" in lines
    assert third == [names[2], "not run"] + [""] * 11
    assert sorted(names, key=lambda name: cells.by_version(tmp_path / name)) == names


def test_cells_pin_what_users_choose():
    """All but the newest, and the oldest, whose versions are the lower bounds."""
    files = sorted((ROOT / "requirements" / "matrix").glob("*.txt"))
    assert len(files) >= 6
    for file in files:
        text = file.read_text()
        if "-c ../oldest.txt" in text or "-r ../torch.txt" in text:
            continue
        for name in ("torch", "torchvision", "numpy"):
            assert f"\n{name}==" in f"\n{text}", (file.name, name)
