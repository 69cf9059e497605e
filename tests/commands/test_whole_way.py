"""kd-det distill without a trained teacher: teacher, both students and a report, in steps."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from small import ROOT, digits_config

from kd_det.commands import plan
from kd_det.commands.steps import Step
from kd_det.pairing.cost import Timing

FASTER = "faster_rcnn/faster-rcnn_r50_fpn_1x_coco"


@pytest.fixture
def arguments(digits: Path, tmp_path: Path) -> list[str]:
    """Of short trainings."""
    for name in ("plain", "teacher"):
        cfg = digits_config(name, digits, tmp_path / "unused")
        cfg.train_dataloader.dataset.indices = 8
        cfg.default_hooks.logger.interval = 1
        cfg.dump(tmp_path / f"{name}.py")
    sides = [str(tmp_path / f"{name}.py") for name in ("plain", "teacher")]
    return [*sides, "--data", str(digits), "--work-dir", str(tmp_path / "work")]


def states(out: str) -> dict[str, str]:
    """The state of each step in the printed plan."""
    lines = out.partition("one after the other:\n")[2].splitlines()
    rows = [line.split(maxsplit=2) for line in lines if line[:3].strip().isdigit()]
    return {name: rest.split("  ")[0] for _, name, rest in rows}


def test_a_dry_run_shows_the_plan_and_trains_nothing(
    tool, arguments, teacher_ckpt, tmp_path, capsys
):
    start = ["--teacher-init", teacher_ckpt]
    tool("distill", *arguments, *start, "--dry-run", "--method", "review_nd")
    out = capsys.readouterr().out
    assert f"\nOf {teacher_ckpt} the teacher gets:\npart " in out
    assert states(out) == dict.fromkeys(("teacher", "alone", "distilled", "report"), "to do")
    assert out.count("2 iterations of ") == 3 and "\nTogether about " in out
    assert "  - schedule: the teacher's own, 1 epoch" in out
    assert "creating index" not in out
    work = tmp_path / "work"
    assert {entry.name for entry in work.iterdir()} == {"config", "data"}
    cfg = Config.fromfile(work / "config" / "distill.py")
    assert cfg.model.teacher_ckpt == str(work / "teacher" / "model_best" / "model.pth")
    assert {path.name for path in (work / "config").iterdir()} == {
        "teacher.py", "alone.py", "distill.py",
    }  # fmt: skip
    # Without a baseline there is nothing to compare with but the teacher.
    tool("distill", *arguments, "--dry-run", "--no-baseline")
    assert list(states(capsys.readouterr().out)) == ["teacher", "distilled", "report"]


def test_the_way_goes_on_where_it_was_stopped(tool, arguments, tmp_path, capsys):
    work = tmp_path / "work"
    process = subprocess.Popen(
        [sys.executable, "-m", "kd_det", "distill", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("[alone] python"):
            break
    process.terminate()
    process.stdout.read()
    assert process.wait() != 0
    weights = work / "teacher" / "model_best" / "model.pth"
    before = weights.stat().st_mtime_ns
    assert not (work / "alone" / "last_checkpoint").exists()

    tool("distill", *arguments)
    out = capsys.readouterr().out
    assert states(out)["teacher"] == "done" and states(out)["distilled"] == "to do"
    assert weights.stat().st_mtime_ns == before
    # It taught: its class names came with its weights, and it was evaluated before.
    saved = torch.load(weights, weights_only=True)["meta"]["dataset_meta"]["classes"]
    assert list(saved) == list("0123456789")
    assert (work / "distilled" / "teacher_metrics.json").is_file()
    roles = [run["role"] for run in json.loads((work / "report.json").read_text())]
    assert roles == ["teacher", "plain", "distilled"]
    assert "gain" in out and f"kd-det export {work / 'distilled'} --checkpoint best" in out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--teacher-init", "TMP/no.pth"], "the checkpoint of --teacher-init does not exist: TMP/"),
        (["--teacher-ckpt", "T", "--teacher-epochs", "3"], "--teacher-epochs: for a teacher that"),
        (["--resume", "epoch_1.pth"], "--resume CHECKPOINT, --allow-changes: for one training"),
        (["--cfg-options", "model.teacher_ckpt=t.pth"], "give it as --teacher-ckpt"),
    ],
)
def test_wrong_input_is_one_sentence(refusal, arguments, teacher_ckpt, tmp_path, more, message):
    words = {"T": str(teacher_ckpt)}
    given = [words.get(word, word.replace("TMP", str(tmp_path))) for word in more]
    assert message.replace("TMP", str(tmp_path)) in refusal("distill", *arguments, *given)


@pytest.mark.parametrize(
    ("student", "teacher", "reason"),
    [
        (FASTER, "solo/solo_r50_fpn_1x_coco", "the teacher mmdet::solo/.* is a SOLO"),
        (
            "reid/reid_r50_8xb32-6e_mot17train80_test-mot17val20",
            FASTER,
            "the student is a BaseReID",
        ),
    ],
)
def test_a_pair_is_refused_before_the_teachers_training_is_made(refusal, student, teacher, reason):
    sides = [f"mmdet::{name}.py" for name in (student, teacher)]
    found = refusal("distill", *sides)
    assert re.search(f"{sides[1]} cannot teach {sides[0]}: .*{reason}", found)


def test_all_methods_share_a_teacher(tool, arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tool("distill", *arguments[:4], "--method", "review", "--no-baseline", "--dry-run")
    assert "\nIn work_dirs/teacher_plain, one after the other" in capsys.readouterr().out


def test_a_given_teacher_with_a_baseline_needs_no_training_of_its_own(
    tool, arguments, teacher_ckpt, capsys
):
    tool("distill", *arguments, "--teacher-ckpt", teacher_ckpt, "--baseline", "--dry-run")
    assert list(states(capsys.readouterr().out)) == ["alone", "distilled", "report"]


# The demo on data of one's own


def test_the_demo_downloads_nothing_that_was_not_allowed(refusal, digits, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    message = refusal("demo", "--data", digits, "--root", tmp_path / "work")
    assert "/resnet18-" in message and "/faster_rcnn_r50_fpn_1x_coco_2020" in message
    assert "would be downloaded; allow it with --download" in message
    assert not (tmp_path / "hub").exists()


def test_the_demo_on_own_data_is_distill(tool, arguments, digits, tmp_path, capsys):
    student, teacher = arguments[:2]
    given = ["--student", student, "--teacher", teacher, "--root", tmp_path / "work"]
    tool("demo", "--data", digits, *given, "--dry-run")
    out = capsys.readouterr().out
    assert list(states(out)) == ["teacher", "alone", "distilled", "report"]
    assert f"kd-det distill {student} {teacher} --data {digits}" in out


def test_options_of_own_data_need_it(refusal):
    assert "--epochs: for data of your own; add --data DIR" in refusal("demo", "--epochs", "3")
    assert "--download, --dry-run: for data" in refusal("demo", "--dry-run", "--download")


# The plan


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (80, "80 s"), (200, "3.3 min"), (5400, "1.5 h"), (300000, "3.5 days")],
)
def test_a_length_is_as_rough_as_it_is_known(seconds, text):
    assert plan.duration(seconds) == f"about {text}"


def test_what_is_left_is_counted(tmp_path, capsys):
    step = Step("one", [], tmp_path / "one", resume="--resume", keep=True)
    step._mark(done=False)
    cfg = Config(dict(train_cfg=dict(max_epochs=4)))
    (step.folder / "last_checkpoint").write_text(f"{step.folder}/epoch_3.pth")
    part = type("Part", (), dict(step=step, cfg=cfg))
    timing = Timing(100, 4, 10, load=2.0, step=1.0, predict=0.5, workers=0)
    plan.show(tmp_path, [part], {"one": timing}, None)
    out = capsys.readouterr().out
    assert states(out) == {"one": "goes on at 75%"}
    assert "100 iterations of 3.00 s, 4 x 10 batches of 0.50 s  about 80 s\n" in out
    assert "no report, which needs jinja2" in out
