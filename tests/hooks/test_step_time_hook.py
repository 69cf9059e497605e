"""The progress line says how fast a run is and where its time goes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small import digits_config, runner

from kd_det import timing
from kd_det.hooks import step_time_hook

# Seconds of a step of four images, and what share of it the line names.
LOADER, TEACHER, STUDENT, LOSSES, UPDATE = 2.0, 3.0, 5.0, 1.0, 9.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The clock of hook and timer, which runs only where a test says so."""
    now = [0.0]

    def forward(seconds: float) -> Any:
        def call(*_: object) -> None:
            now[0] += seconds

        return call

    stopped = SimpleNamespace(perf_counter=lambda: now[0])
    monkeypatch.setattr(step_time_hook, "time", stopped)
    monkeypatch.setattr(timing, "time", stopped)
    return forward


def scalars(run: Any) -> list[dict[str, float]]:
    (file,) = Path(run.work_dir).glob("*/vis_data/scalars.json")
    entries = map(json.loads, file.read_text().splitlines())
    return [entry for entry in entries if "images_per_s" in entry]


def test_shares_are_those_of_the_interval(make, clock, caplog):
    run = make("work", **{"default_hooks.logger.interval": 2})
    run.logger.addHandler(caplog.handler)
    dataset = run.train_dataloader.dataset
    transforms, wait = dataset.pipeline.transforms, clock(LOADER / 4)
    transforms.append(lambda sample: wait() or sample)
    model = run.model
    model.teacher.backbone.register_forward_hook(clock(TEACHER - 1))
    model.teacher.roi_head.bbox_head.register_forward_hook(clock(1))
    model.student.backbone.register_forward_hook(clock(STUDENT))
    model.distiller.distill_losses["loss_kd"].register_forward_hook(clock(LOSSES))
    model.student.backbone.conv1.weight.register_hook(clock(UPDATE))
    run._hooks[:] = [hook for hook in run.hooks if type(hook).__name__ != "ClassCenterHook"]
    model.distiller.distill_losses["loss_nd"].counts.fill_(1)
    run.train()
    (entry,) = scalars(run)
    total = LOADER + TEACHER + STUDENT + LOSSES + UPDATE
    parts = dict(loader=LOADER, teacher=TEACHER, student=STUDENT, distill=LOSSES, update=UPDATE)
    assert entry["images_per_s"] == pytest.approx(4 / total)
    for name, seconds in parts.items():
        assert entry[f"share_{name}"] == pytest.approx(seconds / total), name
    (line,) = [text for text in caplog.messages if "images_per_s" in text]
    shown = r"eta: \S+ .*time: .*images_per_s: 0\.2000 .*share_loader: 0\.1000 .*share_teacher"
    assert re.search(shown, line)


def test_a_training_without_a_teacher_has_its_rate(digits, tmp_path, clock):
    cfg = digits_config("plain", digits, tmp_path / "work")
    cfg.train_dataloader.dataset.indices = 8
    cfg.default_hooks.logger.interval = 1
    cfg.train_cfg = dict(type="IterBasedTrainLoop", max_iters=3, val_interval=2)
    cfg.default_hooks.checkpoint = None
    del cfg.default_hooks["student_export"]
    run = runner(cfg)
    run.model.backbone.conv1.weight.register_hook(clock(2))
    assert run.val_loop is not None
    run.val_loop.dataloader.dataset.pipeline.transforms.append(lambda x: clock(100)() or x)
    run.train()
    found = scalars(run)
    # The evaluation after the second step is no part of the third.
    assert [entry["images_per_s"] for entry in found] == [2.0] * 3
    assert [entry["share_loader"] for entry in found] == [0.0] * 3
    assert "share_teacher" not in found[0]
