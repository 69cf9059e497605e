"""What trainings logged is joined over interruptions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kd_det.report.scalars import read_scalars, task_loss


def log(folder: Path, start: str, *lines: dict | str) -> None:
    file = folder / start / "vis_data" / "scalars.json"
    file.parent.mkdir(parents=True)
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    file.write_text("\n".join(texts))


def test_what_was_computed_anew_replaces_what_it_replaces(tmp_path):
    """The second start goes on from step 20 and logs at other steps than the first."""
    log(tmp_path, "20260101_000000", *({"step": s, "loss": float(s)} for s in (10, 20, 30, 40)))
    log(tmp_path, "20260102_000000", *({"step": s, "loss": -float(s)} for s in (25, 50)))
    assert read_scalars(tmp_path) == {"loss": {10: 10.0, 20: 20.0, 25: -25.0, 50: -50.0}}


def test_metrics_and_losses_have_steps_of_their_own(tmp_path):
    log(tmp_path, "1", {"step": 100, "loss": 1.0, "epoch": 1, "iter": 100}, {"step": 1, "map": 0.1})
    log(tmp_path, "2", {"step": 200, "loss": 0.5, "epoch": 2, "iter": 200}, {"step": 2, "map": 0.2})
    assert read_scalars(tmp_path) == {"loss": {100: 1.0, 200: 0.5}, "map": {1: 0.1, 2: 0.2}}


def test_a_torn_line_text_and_folders_further_down_are_left_out(tmp_path):
    log(tmp_path, "1", {"step": 1, "loss": 2.0, "copypaste": "0.1 0.2"}, '{"step": 2, "lo')
    log(tmp_path / "test", "1", {"step": 7, "loss": 9.0})
    assert read_scalars(tmp_path) == {"loss": {1: 2.0}}
    assert read_scalars(tmp_path / "nowhere") == {}


def test_the_tasks_loss_leaves_distillation_out():
    student = {"student.loss_cls": {1: 2.0, 2: 1.0}, "student.loss_bbox": {1: 0.5, 2: 0.25}}
    others = {"student.acc": {1: 90.0}, "distill.loss_kd": {1: 8.0}, "loss": {1: 10.5, 2: 9.25}}
    assert task_loss({**student, **others}) == pytest.approx({1: 2.5, 2: 1.25})
    assert task_loss({"loss": {1: 3.0}, "loss_cls": {1: 2.0}}) == {1: 3.0}
