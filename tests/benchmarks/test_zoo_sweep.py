"""benchmarks/zoo_sweep.py goes on where it was, and no pair stops the others."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

RETINANET = "retinanet/retinanet_r18_fpn_1x_coco"
TRACKER = "sort/sort_faster-rcnn_r50_fpn_8xb2-4e_mot17halftrain_test-mot17halfval"
# Stands for the process of some pairs: the second one brings it down.
DIES = """
import json, os, sys
from pathlib import Path
folder = Path(sys.argv[sys.argv.index("--work-dir") + 1])
for pair in sys.argv[sys.argv.index("--pairs") + 1:]:
    name = pair.split(",")[0]
    if name == "b":
        os._exit(3)
    outcome = dict(student=name, teacher=name, outcome="passed")
    (folder / f"{name}.json").write_text(json.dumps(outcome))
"""


def outcomes(folder: Path) -> dict[str, str]:
    found = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    return {each["student"]: each["outcome"] for each in found}


def test_two_detectors_are_swept_and_the_sweep_resumes(run, benchmark, monkeypatch, tmp_path):
    module, arguments = benchmark("zoo_sweep"), ("zoo_sweep", "--work-dir", tmp_path)
    pairs = [(TRACKER, TRACKER)]
    monkeypatch.setattr(module, "list_pairs", lambda share: pairs)
    run(*arguments)
    assert outcomes(tmp_path) == {TRACKER: "refused"}
    (first,) = tmp_path.glob("*.json")
    written = first.stat().st_mtime_ns

    pairs.append((RETINANET, RETINANET))
    run(*arguments)
    assert outcomes(tmp_path) == {TRACKER: "refused", RETINANET: "passed"}
    assert first.stat().st_mtime_ns == written
    table = (tmp_path / "zoo.md").read_text()
    assert "| all that teaches itself | 2 | 1 | 0 | 1 | 0 |" in table
    assert "1 are no detectors" in table and "Of the 1 others 1 teach themselves" in table
    (row,) = (line for line in table.splitlines() if line.endswith(f"| {TRACKER} |"))
    assert row.startswith("| 1 | ") and "which tracks objects in videos" in row
    assert str(tmp_path) not in table


def test_a_process_that_dies_costs_one_pair(benchmark, monkeypatch, tmp_path):
    module = benchmark("zoo_sweep")
    script = tmp_path / "dies.py"
    script.write_text(DIES)
    monkeypatch.setattr(module, "__file__", str(script))
    args = Namespace(work_dir=tmp_path / "work", limit=60, memory=1.0, batch=3, again=False)
    args.work_dir.mkdir()
    module.sweep([(name, name) for name in "abcd"], args)
    found = {x.student: x for x in module.read(args.work_dir)}
    assert {name: x.outcome for name, x in found.items()} == {
        **dict.fromkeys("acd", "passed"),
        "b": "failed",
    }
    assert found["b"].reason == "the process ended with 3"
    # Only those that failed are tried again, if that is asked for.
    for path in args.work_dir.glob("*.json"):
        path.write_text(path.read_text().replace("passed", "refused"))
    args.again = True
    module.sweep([(name, name) for name in "abcd"], args)
    assert outcomes(args.work_dir) == {**dict.fromkeys("acd", "refused"), "b": "failed"}


def test_all_of_mmdet_is_listed_once_then_pairs_that_cross(benchmark):
    pairs = benchmark("zoo_sweep").list_pairs(1.0)
    own = [student for student, teacher in pairs if student == teacher]
    assert len(own) == len(set(own)) > 700
    assert len(pairs) - len(own) == 60
    assert RETINANET in own and not any(name.startswith("_base_") for name in own)
    assert len(benchmark("zoo_sweep").list_pairs(0.1)) < 0.3 * len(pairs)
