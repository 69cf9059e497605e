"""kd-det report writes the page and says where."""

from __future__ import annotations

import json
import sys


def test_page_is_written_and_said_where(tool, trained_runs, tmp_path, capsys):
    out = tmp_path / "pages" / "report.html"
    tool("report", *trained_runs.values(), "--out", out, "--images", 1)
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == f"Report written to {out}, its numbers to {out.with_suffix('.json')}"
    assert "<title>Distillation report: teacher, plain, distilled</title>" in out.read_text()
    assert [run["name"] for run in json.loads(out.with_suffix(".json").read_text())] == [
        "teacher",
        "plain",
        "distilled",
    ]


def test_without_out_it_lies_in_the_distilled_run(tool, trained_runs, capsys):
    tool("report", trained_runs["distilled"])
    page = trained_runs["distilled"] / "report.html"
    assert page.is_file()
    assert str(page) in capsys.readouterr().out


def test_what_is_not_installed_is_told(refusal, trained_runs, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    monkeypatch.delitem(sys.modules, "kd_det.report.html_report", raising=False)
    monkeypatch.delitem(sys.modules, "kd_det.report.page", raising=False)
    monkeypatch.delitem(sys.modules, "kd_det.report.sections", raising=False)
    assert 'a report needs jinja2; install it with: pip install "kd_det[report]"' in (
        refusal("report", trained_runs["plain"])
    )


def test_wrong_runs_are_one_sentence(refusal, trained_runs, tmp_path):
    assert f"the run does not exist: {tmp_path}/no; name the work directories" in (
        refusal("report", tmp_path / "no")
    )
    assert f"{tmp_path} is no work directory of a training" in refusal("report", tmp_path)
    assert "expected --images >= 0, found -1" in (
        refusal("report", trained_runs["plain"], "--images", -1)
    )
    options = ["--cfg-options", f"val_dataloader.dataset.data_root={tmp_path}/gone"]
    assert "the val annotation file does not exist" in (
        refusal("report", trained_runs["plain"], *options)
    )
