"""Which run is what, is read from configs."""

from __future__ import annotations

import shutil

import pytest

from kd_det.report.runs import read_runs


def test_roles_are_found_in_any_order(trained_runs):
    runs = read_runs([trained_runs[role] for role in ("distilled", "plain", "teacher")])
    assert [run.role for run in runs] == ["teacher", "plain", "distilled"]
    assert [run.folder for run in runs] == [trained_runs[run.role] for run in runs]
    teacher, plain, distilled = runs
    assert teacher.checkpoint == str(trained_runs["teacher"] / "epoch_1.pth")
    assert distilled.model == plain.model == distilled.cfg.model.architecture
    assert set(plain.scalars["loss"]) == {1, 2}
    assert "distill.loss_nd" in distilled.scalars
    assert "distill_monitor/nd/agreement" in distilled.scalars


def test_a_teacher_is_shown_with_the_weights_that_taught(trained_runs, tmp_path):
    """Its best ones, for example, as distill takes them."""
    for role in ("teacher", "distilled"):
        shutil.copytree(trained_runs[role], tmp_path / role)
    best = shutil.copy(tmp_path / "teacher" / "epoch_1.pth", tmp_path / "teacher" / "best.pth")
    for path in (tmp_path / "distilled").glob("*/vis_data/config.py"):
        last = str(trained_runs["teacher"] / "epoch_1.pth")
        path.write_text(path.read_text().replace(last, str(best)))
    runs = read_runs([tmp_path / "teacher", tmp_path / "distilled"])
    assert (runs[0].role, runs[0].checkpoint) == ("teacher", str(best))


def test_a_teacher_that_is_not_given_is_the_distilled_runs(trained_runs):
    teacher, distilled = read_runs([trained_runs["distilled"]])
    assert (teacher.role, teacher.trained_here, teacher.scalars) == ("teacher", False, {})
    assert teacher.name == "teacher"
    assert teacher.checkpoint == str(trained_runs["teacher"] / "epoch_1.pth")
    assert teacher.model == distilled.cfg.model.teacher


def test_without_a_distilled_run_all_are_plain(trained_runs):
    runs = read_runs([trained_runs["teacher"], trained_runs["plain"], trained_runs["plain"]])
    assert [(run.name, run.role) for run in runs] == [("teacher", "plain"), ("plain", "plain")]


def test_a_run_that_was_moved_and_one_of_the_same_name(trained_runs, tmp_path):
    """The file last_checkpoint names the place where the run was."""
    moved = shutil.copytree(trained_runs["plain"], tmp_path / "plain")
    runs = read_runs([trained_runs["plain"], moved])
    assert [run.name for run in runs] == [str(trained_runs["plain"]), str(moved)]
    assert [run.checkpoint for run in runs] == [f"{run.folder}/epoch_1.pth" for run in runs]
    # CheckpointHook's out_dir may put checkpoints elsewhere.
    (moved / "epoch_1.pth").unlink()
    assert read_runs([moved])[0].checkpoint == str(trained_runs["plain"] / "epoch_1.pth")


def test_options_reach_all_configs(trained_runs):
    runs = read_runs(trained_runs.values(), {"val_dataloader.dataset.data_root": "elsewhere/"})
    assert {run.cfg.val_dataloader.dataset.data_root for run in runs} == {"elsewhere/"}


def test_a_folder_that_is_no_run_is_told(trained_runs, tmp_path):
    with pytest.raises(FileNotFoundError, match="is no work directory of a training: expected"):
        read_runs([tmp_path])
    unfinished = tmp_path / "unfinished"
    kept = shutil.ignore_patterns("last_checkpoint")
    shutil.copytree(trained_runs["plain"], unfinished, ignore=kept)
    with pytest.raises(FileNotFoundError, match="has no finished checkpoint: expected a file"):
        read_runs([unfinished])
    (unfinished / "last_checkpoint").write_text("/gone/epoch_9.pth")
    with pytest.raises(FileNotFoundError, match=r"last_checkpoint names does not exist: /gone"):
        read_runs([unfinished])
