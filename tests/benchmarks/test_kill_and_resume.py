"""benchmarks/kill_and_resume.py, with few kills."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from mmengine.config import Config
from small import ROOT

from kd_det.export.plain_config import plain_config
from kd_det.export.student import export_student


def test_kills_change_nothing(run, tmp_path, capsys):
    root = tmp_path / "runs"
    run("kill_and_resume", "--kills", 2, "--root", root)
    shown = capsys.readouterr().out
    assert "2 kills, " in shown and "changed nothing" in shown
    assert "(pre-pass): " in shown and "(export): " in shown
    assert (root / "killed" / "student_best" / "config.py").is_file()


def test_moments_of_all_kinds_are_planned(study):
    kinds = study.plan(30, random.Random(0))
    assert Counter(kinds) == {"pre-pass": 5, "training": 17, "export": 6, "last export": 2}
    assert kinds[:5] == ["pre-pass"] * 5 and kinds[-2:] == ["last export"] * 2


@pytest.fixture
def study(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("kill_and_resume")


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two checkpoints and their exports."""
    folder = tmp_path_factory.mktemp("exports")
    cfg = Config.fromfile(ROOT / "configs/cls/digits/plain.py")
    for number, level in ((1, "INFO"), (2, "DEBUG")):
        path = folder / f"epoch_{number}.pth"
        weights = {"architecture.a": torch.full((2,), float(number))}
        torch.save(dict(state_dict=weights, meta={}), path)
        cfg.log_level = level
        export_student(path, cfg, plain_config(cfg), folder / f"student{number}")
    return folder


@pytest.mark.parametrize("name", ["config.py", "model.safetensors", "metadata.json", "model.pth"])
def test_files_of_two_exports_are_found(exports, tmp_path, study, name):
    folder = shutil.copytree(exports, tmp_path / "run")
    study.check_files(folder)
    shutil.copy(folder / "student2" / name, folder / "student1" / name)
    with pytest.raises(RuntimeError, match="is of another export"):
        study.check_files(folder)
    (folder / "student1" / name).unlink()
    with pytest.raises(RuntimeError, match="student1 is not whole: found"):
        study.check_files(folder)


def test_a_difference_is_found(tmp_path, study):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder, value in ((whole, 0.0), (killed, 1e-7)):
        folder.mkdir()
        weights = {"a": torch.tensor([0.0, value])}
        state = dict(state_dict=weights, optimizer={}, param_schedulers=[])
        torch.save(state, folder / "epoch_2.pth")
    with pytest.raises(RuntimeError, match="differs in its state_dict"):
        study.compare(whole, killed, 2)
    (killed / "last_checkpoint").write_text(str(tmp_path / "gone.pth"))
    with pytest.raises(FileNotFoundError, match=r"gone\.pth', which is not there"):
        study.check_files(killed)
    (killed / "last_checkpoint").unlink()
    (killed / "epoch_1.pth").write_bytes(b"half")
    with pytest.raises(RuntimeError, match=r"epoch_1\.pth is not whole"):
        study.check_files(killed)
