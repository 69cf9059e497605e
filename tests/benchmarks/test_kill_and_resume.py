"""benchmarks/kill_and_resume.py, with few kills."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from benchmark import run_benchmark
from mmengine.config import Config
from small import ROOT


def test_kills_change_nothing(tmp_path):
    root = tmp_path / "runs"
    done = run_benchmark("kill_and_resume", "--kills", 3, "--root", root)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "3 kills, " in done.stdout and "changed nothing" in done.stdout
    for kind in ("(pre-pass): ", "(training): ", "(export): "):
        assert kind in done.stdout
    assert (root / "killed" / "student_best" / "config.py").is_file()


def test_moments_of_all_kinds_are_planned(study):
    kinds = study.plan(30, random.Random(0))
    assert Counter(kinds) == {"pre-pass": 5, "training": 17, "export": 6, "last export": 2}
    assert kinds[:5] == ["pre-pass"] * 5 and kinds[-2:] == ["last export"] * 2


@pytest.fixture
def study(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("kill_and_resume")


@pytest.mark.parametrize("name", ["config.py", "model.safetensors", "metadata.json", "model.pth"])
def test_files_of_two_exports_are_found(tmp_path, study, name):
    from kd_det.export.plain_config import plain_config
    from kd_det.export.student import export_student

    cfg = Config.fromfile(ROOT / "configs/cls/digits/plain.py")
    for number in (1, 2):
        path = tmp_path / f"epoch_{number}.pth"
        weights = {"architecture.a": torch.full((2,), float(number))}
        torch.save(dict(state_dict=weights, meta={}), path)
        cfg.log_level = ("INFO", "DEBUG")[number - 1]
        export_student(path, cfg, plain_config(cfg), tmp_path / f"student{number}")
        study.check_files(tmp_path)
    shutil.copy(tmp_path / "student2" / name, tmp_path / "student1" / name)
    with pytest.raises(RuntimeError, match="is of another export"):
        study.check_files(tmp_path)
    (tmp_path / "student1" / name).unlink()
    with pytest.raises(RuntimeError, match="student1 is not whole: found"):
        study.check_files(tmp_path)


def test_a_difference_is_found(tmp_path, study):
    state = dict(state_dict={"a": torch.zeros(2)}, optimizer={}, param_schedulers=[])
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        torch.save(state, tmp_path / name / "epoch_2.pth")
    state["state_dict"]["a"][1] = 1e-7
    torch.save(state, tmp_path / "killed" / "epoch_2.pth")
    with pytest.raises(RuntimeError, match="differs in its state_dict"):
        study.compare(tmp_path / "whole", tmp_path / "killed", 2)
    (tmp_path / "killed" / "last_checkpoint").write_text(str(tmp_path / "gone.pth"))
    with pytest.raises(FileNotFoundError, match=r"gone\.pth', which is not there"):
        study.check_files(tmp_path / "killed")
    shutil.copy(tmp_path / "whole" / "epoch_2.pth", tmp_path / "gone.pth")
    study.check_files(tmp_path / "killed")
    (tmp_path / "killed" / "epoch_1.pth").write_bytes(b"half")
    with pytest.raises(RuntimeError, match=r"epoch_1\.pth is not whole"):
        study.check_files(tmp_path / "killed")
