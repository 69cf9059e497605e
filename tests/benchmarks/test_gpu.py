"""benchmarks/gpu.sh runs every stage, each within its time; tiny and on a CPU here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small import ROOT

from kd_det.errors import UserError


def test_a_dry_run_leaves_the_result_of_every_stage(digits, tmp_path):
    command = ["bash", str(ROOT / "benchmarks" / "gpu.sh"), "--dry-run", "--out", str(tmp_path)]
    command += ["--data", str(digits), "--epochs", "1"]
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=400
    )
    log = (tmp_path / "gpu.log").read_text()
    assert done.returncode == 0, done.stdout + done.stderr + log
    stages = json.loads((tmp_path / "stages.json").read_text())
    assert {x["name"]: x["state"] for x in stages} == dict.fromkeys(
        ["tests", "steps", "prepass", "trace", "training"], "done"
    )
    # What a machine that hands a handful of files back would hand back.
    names = {path.name for path in tmp_path.iterdir()}
    results = {"tests.xml", "steps.json", "prepass.json", "trace.json", "training.json"}
    assert names == results | {"stages.json", "gpu.log", "gpu.md"}

    rows = json.loads((tmp_path / "steps.json").read_text())["rows"]
    timed = [row["name"] for row in rows if row["unit"] == "ms"]
    ours, peer = ["as it is", "best options"], ["MMRazor"]
    assert timed == ["student alone", "teacher alone", *ours, *peer, *ours]
    assert all(row["value"] > 0 for row in rows)
    trained = json.loads((tmp_path / "training.json").read_text())["rows"]
    names = ["teacher R50", "R18, review_nd", "R18 alone"]
    assert [row["case"] for row in trained if row["name"] == "mAP"] == names

    page = (tmp_path / "gpu.md").read_text()
    assert page.startswith("# A dry run") and "0 failed" in page
    for heading in ("## tests", "## steps", "## prepass", "## trace", "## training"):
        assert heading in page


def test_a_stage_that_fails_or_hangs_does_not_keep_the_next_from_running(benchmark, tmp_path):
    module = benchmark("_bench.stages")

    def stage(name: str, seconds: float, code: str):
        return module.Stage(name, seconds, lambda _: [sys.executable, "-c", code])

    stages = [
        stage("fails", 60, "import sys; sys.exit('broken')"),
        stage("hangs", 0.5, "import time; time.sleep(600)"),
        stage("runs", 60, "print('ran')"),
    ]
    seen: list[int] = []
    log = tmp_path / "log"
    outcomes = module.run_all(stages, 120, log, os.environ, lambda found: seen.append(len(found)))
    assert [x.state for x in outcomes] == ["failed with exit code 1", "stopped after 0 s", "done"]
    assert seen == [1, 2, 3]
    assert "broken" in log.read_text() and "ran" in log.read_text()

    late = module.run_all(stages[2:], 1, log, os.environ, lambda _: None)
    assert [x.state for x in late] == ["no time was left"]


def test_cases_are_left_out_for_which_no_time_is_left(benchmark):
    clock, left_out, taken = [0.0], list[int](), list[int]()
    in_time = benchmark("_bench.stages").in_time
    for seconds in in_time([1, 5, 2, 1], 10, left_out, lambda: clock[0]):
        taken.append(seconds)
        clock[0] += seconds
    assert taken == [1, 5]  # at 6 of 10 seconds another 5 do not fit
    assert left_out == [2, 1]


def test_gaps_are_where_nothing_runs(benchmark):
    module = benchmark("_bench.gpu_trace")
    spans = [
        module.Span("d", 60, 70),
        module.Span("a", 0, 30),
        module.Span("b", 5, 10),  # within a
        module.Span("c", 32, 40),
    ]
    found = [(gap.ns, gap.after.name, gap.before.name) for gap in module.gaps(spans)]
    assert found == [(20, "c", "d"), (2, "a", "c")]


def test_the_page_names_failed_tests(benchmark, tmp_path: Path):
    outcome = benchmark("_bench.stages").Outcome("tests", "failed with exit code 1", 3.0)
    (tmp_path / "tests.xml").write_text(
        "<testsuites><testsuite>"
        '<testcase classname="tests.a" name="good"/>'
        '<testcase classname="tests.a" name="bad"><failure message="1 | 2&#10;more"/></testcase>'
        '<testcase classname="tests.a" name="out"><skipped message="no"/></testcase>'
        "</testsuite></testsuites>"
    )
    page = benchmark("_bench.gpu_page").page(tmp_path, [outcome], dry_run=False)
    assert "1 passed, 1 failed, 1 skipped." in page
    assert "tests.a.bad" in page and "1 / 2" in page and "more" not in page
    assert page.startswith("# A run on a GPU")


def test_without_a_gpu_it_says_so(run, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"no GPU here; --dry-run"):
        run("gpu", "--out", tmp_path / "out")
