"""benchmarks/speed.py runs every suite and compares two of its files; no time is asserted."""

from __future__ import annotations

import json

import pytest

from kd_det.errors import InvalidInputError


def test_every_suite_has_its_figures_and_two_files_are_compared(run, benchmark, tmp_path, capsys):
    path, page = tmp_path / "first.json", tmp_path / "first.md"
    options = ["--suites", "losses", "prepass", "step", "peer", "--methods", "review_nd"]
    options += ["--seconds", 0, "--rounds", 1]
    run("speed", *options, "--json", path, "--markdown", page)
    shown = capsys.readouterr().out
    assert "sum of the parts" in shown and "at most 1.05" in shown
    content = json.loads(path.read_text())
    found: dict[str, dict[str, float]] = {}
    for row in content["rows"]:
        assert row["value"] >= 0
        found.setdefault(row["suite"], {})[row["name"]] = row["value"]
    assert {"nd_loss", "hcl_loss", "ReviewFusion", "dkd_loss"} <= found["losses"].keys()
    assert {"pre-pass", "ClassCenters.update", "images a second"} <= found["prepass"].keys()
    parts = {"student alone", "teacher", "connectors", "losses", "whole"}
    assert parts <= found["step"].keys()
    for part in ("teacher", "student alone"):
        assert 0 < found["step"][f"peak memory, {part}"] < found["step"]["peak memory, whole"]
    assert {"kd_det.TeacherDistill", "mmrazor.SingleTeacherDistill"} <= found["peer"].keys()

    lines = page.read_text().splitlines()
    cells = [line.count("|") for line in lines if line.startswith("|")]
    assert len(cells) > len(content["rows"]) and set(cells) == {8}
    assert any("benchmarks/speed.py --suites losses" in line for line in lines)

    content["about"]["threads"] = 99
    for row in content["rows"]:
        row["value"] *= 2
    second = tmp_path / "second.json"
    second.write_text(json.dumps(content))
    run("speed", "--compare", path, second)
    shown = capsys.readouterr().out
    assert "and 99" in shown and "2.000" in shown
    second.write_text("[]")
    with pytest.raises(InvalidInputError, match=r"second.json: expected a file that --json wrote"):
        run("speed", "--compare", path, second)


def test_growth_is_fitted(benchmark):
    exponent = benchmark("_bench.scale").exponent
    assert exponent({1: 3.0, 2: 12.0, 4: 48.0}) == pytest.approx(2)
    assert exponent({1: 5.0, 10: 5.0}) == pytest.approx(0)
