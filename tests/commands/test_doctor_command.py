"""kd-det doctor looks at real trainings; kd-det train ends with what it says."""

from __future__ import annotations

import json


def test_a_real_run_as_text_and_as_json(tool, trained, capsys):
    tool("doctor", trained)
    text = capsys.readouterr().out
    assert text.startswith(f"{trained}: ") and " in 2 iterations.\n" in text
    assert "The learning rate is 0.002 for a batch of 4" in text
    assert "The teacher" in text and "\nloss " in text
    tool("doctor", trained, "--json")
    found = json.loads(capsys.readouterr().out)
    assert {loss["name"] for loss in found["losses"]} == {"loss_review", "loss_nd", "loss_kd"}
    assert found["healthy"] is not any(finding["problem"] for finding in found["findings"])
    # The same at the end of the training.
    (log,) = trained.glob("*/*.log")
    assert text.strip() in log.read_text()


def test_what_is_no_run_is_told(refusal, tmp_path):
    assert "the run does not exist" in refusal("doctor", tmp_path / "no")
    assert "is no work directory of a training" in refusal("doctor", tmp_path)
