"""``kd-det data``: tables, JSON and a page; wrong input is one sentence."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "datasets"))
import made


@pytest.fixture
def fruit(tmp_path: Path) -> Path:
    root = tmp_path / "fruit & co"
    for split, names in made.SPLIT.items():
        made.pictures(root / "images" / split, names)
        made.labels(root / "labels" / split, names)
    made.write(
        root / "data.yaml", "train: images/train\nval: images/val\nnames: [apple, '[pear]']\n"
    )
    return root


def test_tables_name_what_was_found(tool, fruit, tmp_path, capsys):
    tool("data", fruit, "--work-dir", tmp_path / "found", "--scale", 80, 40)
    out = capsys.readouterr().out
    assert out.startswith(f"{fruit} is recognised as YOLO (data.yaml)\n")
    assert "[pear]" in out and "at 80 x 40" in out
    assert f"train: {tmp_path}/found/data/train.json" in out
    assert "warning: train: 2 of 2 classes have fewer than 10 boxes" in out
    written = json.loads((tmp_path / "found" / "data" / "train.json").read_text())
    assert [i["file_name"] for i in written["images"]] == [f"images/train/{n}.jpg" for n in "abc"]


def test_json_is_all_that_is_printed(tool, fruit, tmp_path, capsys):
    tool("data", fruit, "--work-dir", tmp_path / "work", "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["classes"] == ["apple", "[pear]"] and found["parts"]["val"]["boxes"] == 3
    assert found["annotations"]["val"] == str(tmp_path / "work" / "data" / "val.json")


def test_a_page_shows_pictures_with_boxes(tool, fruit, tmp_path, capsys):
    tool("data", fruit, "--work-dir", tmp_path / "work", "--html", "--images-shown", 3)
    page = (tmp_path / "work" / "data" / "data.html").read_text()
    assert page.count("<image ") == 3 and page.count("<rect ") >= 4
    assert "Data: fruit &amp; co" in page and "Class balance" in page and 'src="http' not in page
    assert "Solid green" not in page
    # Colours tell the classes, and stand under each picture; text at small boxes cannot be read.
    assert "<text " not in page
    keys = dict(re.findall(r'background: (#\w+)"></i>(\[?\w+)', page))
    assert sorted(keys.values()) == ["[pear", "apple"]
    assert set(re.findall(r'<rect style="stroke: (#\w+)"', page)) == set(keys)


def test_errors_end_it_after_all_was_told(refusal, tool, fruit, tmp_path, capsys):
    (fruit / "images" / "train" / "a.jpg").write_bytes(b"")
    (fruit / "labels" / "train" / "b.txt").write_text("7 0.5 0.5 0.1 0.1")
    message = refusal("data", fruit, "--work-dir", tmp_path / "work")
    assert "cannot be trained on as it is: 2 kinds of errors, the first is " in message
    with pytest.raises(SystemExit):
        tool("data", fruit, "--work-dir", tmp_path / "work", "--json")
    faults = json.loads(capsys.readouterr().out)["faults"]
    assert [f["items"] for f in faults if f["severity"] == "error"] == [
        ["labels/train/b.txt:1"], [str(fruit / "images/train/a.jpg")],
    ]  # fmt: skip


def test_wrong_input_is_one_sentence(refusal, fruit, tmp_path):
    work = ("--work-dir", tmp_path / "work")
    assert "no folder is at " in refusal("data", tmp_path / "no", *work)
    assert "expected two sides" in refusal("data", fruit, *work, "--scale", 0, 9)
    assert "--train-ann: found no x.json" in refusal("data", fruit, *work, "--train-ann", "x.json")
    (tmp_path / "empty").mkdir()
    assert "is empty; expected" in refusal("data", tmp_path / "empty", *work)
    assert "expected --images-shown" in refusal(
        "data", fruit, *work, "--html", "--images-shown", -1
    )
