"""When the student is exported, and what a run does when it cannot be."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from small import digits_config, runner

from kd_det.hooks import student_export_hook


class Score(Hook):
    """Gives each evaluation a score of its own."""

    priority = "VERY_HIGH"

    def __init__(self, scores: list[float]) -> None:
        self.scores = scores

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        assert metrics is not None
        metrics["score"] = self.scores[runner.epoch - 1]


@pytest.fixture
def plain(digits: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Callable[..., Runner]:
    """Makes Runners of a detector without a teacher, an epoch for each score."""

    def make(*scores: float, **options: object) -> Runner:
        cfg = digits_config("plain", digits, tmp_path / "work")
        cfg.train_dataloader.dataset.indices = 4
        cfg.val_dataloader.dataset.indices = 4
        cfg.train_cfg.max_epochs = len(scores)
        cfg.default_hooks.checkpoint.update(save_best="score", rule="greater")
        cfg.merge_from_dict(options)
        run = runner(cfg)
        run.register_hook(Score(list(scores)))
        run.logger.addHandler(caplog.handler)
        return run

    return make


def exports(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Checkpoint and folder of each export that was announced."""
    found = re.findall(r"Exporting the student of (\S+) to (\S+)", caplog.text)
    return [(checkpoint, Path(folder).name) for checkpoint, folder in found]


def exported(folder: Path) -> tuple[str, dict[str, torch.Tensor]]:
    """Name of the checkpoint that an export is of, and its weights."""
    name = json.loads((folder / "metadata.json").read_text())["checkpoint"]
    return name, torch.load(folder / "model.pth", weights_only=True)["state_dict"]


def is_of(folder: Path, checkpoint: Path) -> bool:
    name, weights = exported(folder)
    expected = torch.load(checkpoint, weights_only=True)["state_dict"]
    return name == checkpoint.name and all(torch.equal(weights[key], expected[key])
                                           for key in expected)  # fmt: skip


def test_each_new_best_and_the_last_are_exported(plain, tmp_path, caplog):
    plain(0.5, 0.9, 0.1).train()
    assert exports(caplog) == [
        ("best_score_epoch_1.pth", "student_best"),
        ("best_score_epoch_2.pth", "student_best"),
        ("epoch_3.pth", "student"),
    ]
    work = tmp_path / "work"
    assert is_of(work / "student_best", work / "best_score_epoch_2.pth")
    assert is_of(work / "student", work / "epoch_3.pth")
    assert not list(work.glob(".student*.new-*"))


def test_several_metrics_have_a_best_each(plain, tmp_path):
    plain(0.5, **{"default_hooks.checkpoint.save_best": ["score", "coco/bbox_mAP"]}).train()
    folders = {path.name for path in (tmp_path / "work").glob("student*")}
    assert folders == {"student", "student_best_score", "student_best_coco_bbox_mAP"}


@pytest.mark.parametrize("best, last", [(True, False), (False, True)])
def test_either_can_be_turned_off(plain, tmp_path, best, last):
    hook = dict(type="kd_det.StudentExportHook", best=best, last=last)
    plain(0.5, **{"default_hooks.student_export": hook}).train()
    assert (tmp_path / "work" / "student_best").exists() == best
    assert (tmp_path / "work" / "student").exists() == last


def test_without_checkpoints_there_is_nothing_to_export(plain, tmp_path, caplog):
    options = dict(save_best=None, rule=None, save_last=False, interval=-1)
    plain(0.5, **{f"default_hooks.checkpoint.{key}": value for key, value in options.items()}
          ).train()  # fmt: skip
    assert not exports(caplog) and not list((tmp_path / "work").glob("student*"))


def test_a_best_whose_export_was_killed_is_exported_by_the_resumed_run(
    plain, tmp_path, monkeypatch, caplog
):
    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(student_export_hook, "export_student", kill)
        plain(0.5, 0.1).train()
    assert exports(caplog) == [("best_score_epoch_1.pth", "student_best")]
    caplog.clear()
    plain(0.5, 0.1, resume=True).train()
    assert exports(caplog)[0] == ("best_score_epoch_1.pth", "student_best")
    work = tmp_path / "work"
    assert is_of(work / "student_best", work / "best_score_epoch_1.pth")


def test_an_export_that_fails_costs_no_checkpoint_and_no_file(plain, tmp_path, caplog):
    notes = tmp_path / "work" / "student" / "notes.txt"
    notes.parent.mkdir(parents=True)
    notes.write_text("mine")
    plain(0.5).train()
    work = tmp_path / "work"
    assert "The student was not exported: FileExistsError" in caplog.text
    assert f"tools/export_student.py {work}" in caplog.text
    assert torch.load(work / "epoch_1.pth", weights_only=True)["meta"]["epoch"] == 1
    assert notes.read_text() == "mine" and len(list(notes.parent.iterdir())) == 1
    assert is_of(work / "student_best", work / "best_score_epoch_1.pth")


def test_a_student_that_is_not_plain_is_told_before_training(plain, tmp_path, caplog):
    run = plain(0.5)
    run.cfg.model.backbone = dict(type="kd_det.CifarResNet", depth=8)
    run.cfg.test_dataloader.dataset.type = "kd_det.Digits"
    hook = next(each for each in run.hooks if type(each).__name__ == "StudentExportHook")
    hook.before_train(run)
    assert "The student has modules of kd_det, and its export needs that package" in caplog.text
    group = "test_dataloader, test_cfg, test_evaluator"
    assert f"config will be without {group} (for kd_det.Digits)" in caplog.text


def test_evaluation_alone_exports_nothing(plain, tmp_path, caplog):
    run = plain(0.5, **{"default_hooks.checkpoint.save_best": None})
    run.message_hub.update_info("best_ckpt", "best.pth")  # as a resumed one knows it
    run.val()
    assert not exports(caplog) and not list((tmp_path / "work").glob("student*"))
