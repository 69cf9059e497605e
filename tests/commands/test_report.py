"""kd-det report writes the page and says where."""

from __future__ import annotations

import json
import sys

from kd_det.report import cost


def test_page_is_written_and_said_where(tool, trained_runs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cost, "ROUNDS", 3)
    out = tmp_path / "pages" / "report.html"
    tool("report", *trained_runs.values(), "--out", out, "--images", 1)
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == f"Report written to {out}, its numbers to {out.with_suffix('.json')}"
    assert "<title>Distillation report: teacher, plain, distilled</title>" in out.read_text()
    numbers = json.loads(out.with_suffix(".json").read_text())
    assert [run["name"] for run in numbers] == ["teacher", "plain", "distilled"]
    # Without --out it lies in the distilled run.
    tool("report", *trained_runs.values())
    page = trained_runs["distilled"] / "report.html"
    assert page.is_file() and str(page) in capsys.readouterr().out


def test_what_is_not_installed_is_told(refusal, trained_runs, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    for name in ("html_report", "page", "sections"):
        monkeypatch.delitem(sys.modules, f"kd_det.report.{name}", raising=False)
    message = 'a report needs jinja2; install it with: pip install "kd_det[report]"'
    assert message in refusal("report", trained_runs["plain"])


def test_wrong_runs_are_one_sentence(refusal, trained_runs, tmp_path):
    plain = trained_runs["plain"]
    gone = f"val_dataloader.dataset.data_root={tmp_path}/gone"
    for arguments, message in (
        ([tmp_path / "no"], f"the run does not exist: {tmp_path}/no; name the work directories"),
        ([tmp_path], f"{tmp_path} is no work directory of a training"),
        ([plain, "--images", -1], "expected --images >= 0, found -1"),
        ([plain, "--cfg-options", gone], "the val annotation file does not exist"),
    ):
        assert message in refusal("report", *arguments)
