"""``kd-det demo``: which step depends on which, the methods, the table."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from mmengine.config import Config
from small import ROOT, load

from kd_det.commands import demo, results
from kd_det.commands.steps import Step
from kd_det.pairing.methods import reads_centers
from kd_det.recipes import methods_of


@pytest.fixture(autouse=True)
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_students_differ_in_nothing_but_the_teacher(tmp_path):
    teacher, centers = demo.teacher_steps(tmp_path)
    students = demo.student_steps(tmp_path, ["robust", "review_nd_kd"], 7, teacher, centers)
    plain, default, distilled = students
    assert [step.name for step in teacher.inputs] == ["data"]
    assert plain.inputs == teacher.inputs and centers.inputs == [teacher]
    assert default.inputs == [teacher] and distilled.inputs == [teacher, centers]
    assert all("randomness.seed=7" in step.command for step in students)
    assert f"model.teacher_ckpt={demo.checkpoint(teacher)}" in distilled.command
    assert f"custom_hooks.0.file={centers.folder}/class_centers.safetensors" in distilled.command
    assert len({step.folder for step in students}) == len({step.name for step in students}) == 3

    configs = [Config.fromfile(step.config) for step in (plain, distilled)]
    # The plain student has no connectors to which this could apply.
    own = configs[1].optim_wrapper.pop("paramwise_cfg")
    assert own == dict(custom_keys={"distiller.connectors": dict(lr_mult=10)})
    del configs[1].optim_wrapper["constructor"]
    for key in ("train_dataloader", "optim_wrapper", "param_scheduler", "train_cfg", "test_cfg"):
        assert configs[0][key] == configs[1][key]
    assert configs[1].model.architecture == configs[0].model


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Step]:
    """The steps that would have run, which leave the numbers of a report."""
    found: list[Step] = []

    def keep(steps: list[Step]) -> None:
        found.extend(steps)
        (tmp_path / "report.json").write_text("[]")

    monkeypatch.setattr(demo, "run_steps", keep)
    return found


def test_it_shows_the_default_beside_reviewkd_and_nd(ran, tool, tmp_path):
    tool("demo", "--root", tmp_path)
    names = ["data", "teacher", "centers", "plain", "robust_fit", "review_nd_fit", "report"]
    assert [step.name for step in ran] == names
    runs = [step for step in ran if step.name not in ("data", "centers", "report")]
    assert ran[-1].inputs == runs


def test_other_methods_in_their_place(ran, tool, tmp_path):
    tool("demo", "--root", tmp_path, "--method", "cwd", "pkd", "cwd")
    # None of them reads class centers.
    assert [step.name for step in ran] == ["data", "teacher", "plain", "cwd", "pkd", "report"]


@pytest.mark.parametrize("given", [None, "2"])
def test_a_busy_core_does_not_hold_it_up(ran, tool, tmp_path, monkeypatch, given):
    """Its processes have one thread, unless the user says otherwise."""
    monkeypatch.setenv("OMP_NUM_THREADS", given or "")
    if given is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    tool("demo", "--root", tmp_path)
    assert os.environ["OMP_NUM_THREADS"] == (given or "1")


def test_methods_are_those_of_its_pair(ran, tool, refusal, capsys):
    methods = methods_of(ROOT / "configs" / "digits" / "frcnn_r50_r18.py")
    assert demo.find_methods() == methods
    with pytest.raises(SystemExit):
        tool("demo", "--help")
    words = capsys.readouterr().out.replace(",", " ").split()
    assert set(methods) <= set(words) and "crosskd" not in words
    message = refusal("demo", "--method", "review", "crosskd")
    assert "--method crosskd: not for this pair; available: cwd, cwd_nd, " in message
    assert not ran


def test_every_method_that_reads_centers_gets_those_of_the_demo():
    for method in filter(reads_centers, demo.find_methods()):
        hook = load(ROOT / "configs" / "digits" / "frcnn_r50_r18.py", method).custom_hooks[0]
        assert hook.type == "kd_det.ClassCenterHook", method  # demo sets its file by this place


def test_data_of_ones_own_takes_one_method(refusal, digits):
    message = refusal("demo", "--data", digits, "--method", "review", "kd")
    assert "--method review kd: with --data it takes one method" in message


def test_it_ends_with_a_table_of_all_runs(tmp_path, capsys):
    def run(name: str, role: str, value: float, closed: float | None = None) -> dict:
        metrics = dict.fromkeys(("coco/bbox_mAP", "coco/bbox_mAP_50"), value)
        return dict(name=name, role=role, metrics=metrics, gap_closed=closed)

    runs = [
        run("teacher", "teacher", 0.5),
        run("plain_seed0", "plain", 0.1),
        run("robust_seed0", "distilled", 0.2, 0.25),
        dict(run("review_nd_kd_seed0", "distilled", 0.0, None), metrics={}),
    ]
    (tmp_path / "report.json").write_text(json.dumps(runs))
    results.print_table(tmp_path / "report.json")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        [],
        ["bbox_mAP", "bbox_mAP_50", "bbox_mAP_75", "gain", "of", "the", "gap"],
        ["teacher", "0.500", "0.500", "0.000"],
        ["plain_seed0", "0.100", "0.100", "0.000"],
        ["robust_seed0", "0.200", "0.200", "0.000", "+0.100", "25%"],
        ["review_nd_kd_seed0", "0.000", "0.000", "0.000", "-0.100"],
    ]
