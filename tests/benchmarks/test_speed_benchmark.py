"""benchmarks/speed.py runs every suite and compares two of its files; no time is asserted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmark import run_benchmark

QUICK = ["--seconds", 0, "--rounds", 1, "--threads", 1]


def rows(path: Path) -> list[dict]:
    return json.loads(path.read_text())["rows"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    path = tmp_path_factory.mktemp("benchmark") / "first.json"
    suites = ["losses", "prepass", "step", "peer"]
    files = ["--json", path, "--markdown", path.with_suffix(".md")]
    done = run_benchmark("speed", "--suites", *suites, "--methods", "review_nd", *QUICK, *files)
    assert done.returncode == 0, done.stderr
    return path, done.stdout


def test_every_suite_has_its_figures(measured):
    path, shown = measured
    names: dict[str, set] = {}
    for row in rows(path):
        assert row["value"] >= 0
        names.setdefault(row["suite"], set()).add(row["name"])
    assert {"nd_loss", "hcl_loss", "ReviewFusion", "dkd_loss"} <= names["losses"]
    assert {"pre-pass", "ClassCenters.update", "images a second"} <= names["prepass"]
    parts = {"student alone", "teacher", "connectors", "losses", "whole"}
    assert parts | {"peak memory, whole"} <= names["step"]
    assert {"kd_det.RoITeacherDistill", "mmrazor.SingleTeacherDistill"} <= names["peer"]
    assert "sum of the parts" in shown and "at most 1.05" in shown


def test_the_tables_are_a_page_too(measured):
    page = measured[0].with_suffix(".md").read_text().splitlines()
    cells = [line.count("|") for line in page if line.startswith("|")]
    assert len(cells) > len(rows(measured[0])) and set(cells) == {8}
    assert any("benchmarks/speed.py --suites losses" in line for line in page)


def test_the_whole_holds_more_memory_than_its_largest_part(measured):
    memory = {
        row["name"]: row["value"]
        for row in rows(measured[0])
        if row["case"] == "digits review_nd" and row["unit"] == "MiB"
    }
    assert 0 < memory["peak memory, teacher"] < memory["peak memory, whole"]
    assert 0 < memory["peak memory, student alone"] < memory["peak memory, whole"]


def test_two_files_side_by_side(measured, tmp_path):
    first = measured[0]
    content = json.loads(first.read_text())
    content["about"]["threads"] = 99
    for row in content["rows"]:
        row["value"] *= 2
    second = tmp_path / "second.json"
    second.write_text(json.dumps(content))
    done = run_benchmark("speed", "--compare", first, second)
    assert done.returncode == 0, done.stderr
    assert "threads: 1 and 99" in done.stdout and "2.000" in done.stdout


def test_a_file_of_something_else_is_refused(tmp_path):
    wrong = tmp_path / "wrong.json"
    wrong.write_text("[]")
    done = run_benchmark("speed", "--compare", wrong, wrong)
    assert done.returncode == 1
    assert "wrong.json: expected a file that --json wrote" in done.stderr


def test_growth_is_fitted(benchmark):
    exponent = benchmark("_bench.scale").exponent
    assert exponent({1: 3.0, 2: 12.0, 4: 48.0}) == pytest.approx(2)
    assert exponent({1: 5.0, 10: 5.0}) == pytest.approx(0)
