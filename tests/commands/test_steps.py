"""A step runs a command once, again when something changed, and goes on after a stop.

Of ``kd-det demo``: which step depends on which, the table.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mmengine.config import Config
from small import ROOT

from kd_det.commands import demo, results, steps
from kd_det.commands.steps import StepError

# Notes its arguments; fails while there is a file `fail`.
SCRIPT = """
import pathlib, sys
folder = pathlib.Path(sys.argv[1])
with (folder / "runs.txt").open("a") as file:
    file.write(" ".join(sys.argv[2:]) + "\\n")
print("Gathering of everything")
print("Evaluating a: 5/9, 0.3/s, 12 s left")
for i in range(20):
    print("detail", i)
if (folder.parent / "fail").exists():
    sys.exit("Error: no luck today")
(folder / "result.txt").write_text("made")
"""


@pytest.fixture
def step(tmp_path: Path) -> Callable:
    """Makes a step that notes its arguments in ``<name>/runs.txt``."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    def make(name: str = "one", *options: str, **kwargs: object):
        folder = tmp_path / name
        return steps.Step(name, [str(script), str(folder), *options], folder, **kwargs)

    return make


def runs(step) -> list[str]:
    """Options of each run whose results are in the step's folder."""
    return (step.folder / "runs.txt").read_text().splitlines()


def test_runs_once_and_prints_what_can_be_run_by_hand(step, capsys):
    one = step("one", "--seed", "3")
    one.run()
    first = capsys.readouterr().out
    assert f"[one] python {' '.join(one.command)}" in first
    assert "  one: Gathering of everything" in first and "detail" not in first
    assert "  one: Evaluating a: 5/9" in first
    assert "detail 19" in (one.folder / "console.log").read_text()
    step("one", "--seed", "3").run()
    assert "[one] done already in" in capsys.readouterr().out
    assert runs(one) == ["--seed 3"]
    # Another command runs in an empty folder.
    (one.folder / "leftover.pth").write_text("")
    step("one", "--seed", "4").run()
    assert runs(one) == ["--seed 4"] and not (one.folder / "leftover.pth").exists()
    assert "settings changed" in capsys.readouterr().out


def test_runs_again_when_its_result_is_gone(step, tmp_path):
    one = step("one", results=[tmp_path / "one" / "result.txt"])
    one.run()
    one.results[0].unlink()
    one.run()
    assert len(runs(one)) == 2 and one.results[0].exists()


def test_changed_config_runs_anew_even_where_only_its_base_changed(step, tmp_path):
    base, config = tmp_path / "base.py", tmp_path / "config.py"
    base.write_text("lr = 1\n")
    config.write_text('_base_ = "./base.py"\n')
    one = step(config=str(config))
    one.run()
    config.write_text('# A comment changes nothing.\n_base_ = "./base.py"\n')
    step(config=str(config)).run()
    (one.folder / "kept").write_text("")
    step(config=str(config)).run()
    assert (one.folder / "kept").exists() and len(runs(one)) == 1
    base.write_text("lr = 2\n")
    step(config=str(config)).run()
    assert not (one.folder / "kept").exists()


def test_changed_input_runs_anew(step):
    def chain(option: str) -> list:
        first = step("first", option)
        second = step("second", inputs=[first])
        return [first, second, step("third", inputs=[second])]

    for each in chain("a"):
        each.run()
        (each.folder / "kept").write_text("")
    for each in chain("a"):
        each.run()
        assert (each.folder / "kept").exists()
    for each in chain("b"):
        each.run()
        assert not (each.folder / "kept").exists()


def test_failure_shows_the_end(step, tmp_path):
    (tmp_path / "fail").write_text("")
    one = step()
    with pytest.raises(StepError, match="step 'one' failed with exit code 1") as caught:
        one.run()
    shown = str(caught.value)
    assert "Error: no luck today" in shown and "detail 19" in shown and "detail 2\n" not in shown
    assert str(one.folder / "console.log") in shown


@pytest.mark.parametrize(
    ("first", "then", "resume", "options"),
    [
        ("3", "3", "--resume", ["--seed 3", "--seed 3 --resume"]),
        ("3", "3", None, ["--seed 3", "--seed 3"]),
        ("3", "4", "--resume", ["--seed 4"]),  # not resumed with other settings
    ],
)
def test_the_run_after_a_failure_resumes(step, tmp_path, first, then, resume, options):
    (tmp_path / "fail").write_text("")
    with pytest.raises(StepError):
        step("one", "--seed", first, resume=resume).run()
    (tmp_path / "fail").unlink()
    again = step("one", "--seed", then, resume=resume)
    for _ in range(2):
        again.run()
        assert runs(again) == options and (again.folder / "result.txt").exists()


def test_folder_of_somebody_else_is_refused_and_stays(step):
    one = step()
    one.folder.mkdir()
    (one.folder / "thesis.txt").write_text("years of work")
    with pytest.raises(StepError, match=r"holds files that this tool did not make.*--root"):
        one.run()
    assert [p.name for p in one.folder.iterdir()] == ["thesis.txt"]
    (one.folder / "thesis.txt").unlink()
    one.run()  # an empty folder is nobody's
    assert runs(one) == [""]


def test_what_took_long_is_kept_aside_and_outlives_a_version(step, monkeypatch, capsys):
    step("one", "--seed", "3", keep=True).run()
    monkeypatch.setattr(steps, "__version__", "9.9")
    assert step("one", "--seed", "3", keep=True).done
    for seed in ("4", "5"):
        other = step("one", "--seed", seed, keep=True)
        assert other.outdated and not other.begun
        other.run()
    kept = [other.folder.with_name(f"one_old{n}") / "runs.txt" for n in (1, 2)]
    assert [path.read_text() for path in kept] == ["--seed 3\n", "--seed 4\n"]
    assert f"what was there is now {kept[0].parent}" in capsys.readouterr().out


def test_other_content_of_its_files_runs_anew(step):
    step(digests=["a"]).run()
    assert step(digests=["a"]).done
    assert step(digests=["b"]).outdated


def test_a_command_that_leaves_no_results_is_an_error(step, tmp_path):
    one = step(results=[tmp_path / "one" / "model.pth"])
    with pytest.raises(StepError, match=r"step 'one' ended without .*model\.pth; .*console\.log"):
        one.run()
    assert not one.done


STARTS = """
import sys
from pathlib import Path
from kd_det.commands.steps import Step, run_steps
folder = Path(sys.argv[1])
run_steps([Step("one", [str(folder.parent / "wait.py"), str(folder)], folder)])
"""
WAITS = """
import pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
(folder / "started").touch()
while not (folder.parent / "go").exists():
    time.sleep(0.05)
(folder / "result.txt").write_text("made")
"""


@pytest.fixture
def started(tmp_path: Path) -> Iterator[subprocess.Popen]:
    """A process that runs a step, whose command waits for a file `go`."""
    (tmp_path / "wait.py").write_text(WAITS)
    folder = tmp_path / "one"
    process = subprocess.Popen([sys.executable, "-c", STARTS, str(folder)], cwd=ROOT)
    wait_for(lambda: (folder / "started").exists())
    yield process
    (tmp_path / "go").touch()
    process.kill()
    process.wait()


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such locks")
def test_what_outlives_a_kill_is_not_run_twice(started, tmp_path):
    started.kill()
    started.wait()
    folder = tmp_path / "one"
    again = steps.Step("one", [str(tmp_path / "wait.py"), str(folder)], folder)
    with pytest.raises(StepError, match=r"step 'one' still runs in .*one, started before"):
        again.run()
    (tmp_path / "go").touch()
    wait_for((folder / "result.txt").exists)
    wait_for(lambda: ran(again))


def ran(step) -> bool:
    """Whether the step could run; the process that ran before may still be ending."""
    try:
        step.run()
    except StepError:
        return False
    return step.done


@pytest.mark.skipif(os.name != "posix", reason="Windows has no SIGTERM")
def test_sigterm_ends_the_command_too(started, tmp_path):
    started.terminate()
    assert started.wait() == 128 + signal.SIGTERM
    (tmp_path / "go").touch()
    time.sleep(0.2)
    assert not (tmp_path / "one" / "result.txt").exists()


# The demo


@pytest.fixture(autouse=True)
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_students_differ_in_nothing_but_the_teacher(tmp_path):
    teacher, centers = demo.teacher_steps(tmp_path)
    plain, distilled = demo.student_steps(tmp_path, "review_nd_kd", 7, teacher, centers)
    assert [step.name for step in teacher.inputs] == ["data"]
    assert plain.inputs == teacher.inputs and centers.inputs == [teacher]
    assert distilled.inputs == [teacher, centers]
    assert "randomness.seed=7" in plain.command and "randomness.seed=7" in distilled.command
    assert f"model.teacher_ckpt={demo.checkpoint(teacher)}" in distilled.command
    assert f"custom_hooks.0.file={centers.folder}/class_centers.safetensors" in distilled.command
    assert plain.folder != distilled.folder

    configs = [Config.fromfile(step.config) for step in (plain, distilled)]
    # The plain student has no connectors to which this could apply.
    own = configs[1].optim_wrapper.pop("paramwise_cfg")
    assert own == dict(custom_keys={"distiller.connectors": dict(lr_mult=10)})
    del configs[1].optim_wrapper["constructor"]
    for key in ("train_dataloader", "optim_wrapper", "param_scheduler", "train_cfg", "test_cfg"):
        assert configs[0][key] == configs[1][key]
    assert configs[1].model.architecture == configs[0].model


def test_it_ends_with_a_report_of_all_runs_and_a_table(tmp_path, capsys):
    teacher, centers = demo.teacher_steps(tmp_path)
    runs = [teacher, *demo.student_steps(tmp_path, "robust", 0, teacher, centers)]
    report = results.report_step(tmp_path, runs)
    assert report.inputs == runs
    assert report.command[3:6] == [str(run.folder) for run in runs]
    assert report.results == [tmp_path / "report.html", tmp_path / "report.json"]
    entries = [
        {"name": name, "role": role, "metrics": {"coco/bbox_mAP": value, "coco/bbox_mAP_50": value}}
        for name, role, value in (
            ("teacher", "teacher", 0.5),
            ("alone", "plain", 0.1),
            ("distilled", "distilled", 0.2),
        )
    ]
    report.results[1].write_text(json.dumps(entries))
    results.print_table(report.results[1])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-4].split() == ["teacher", "0.500", "0.500", "0.000"]
    assert lines[-3].startswith("alone ")  # as its folder and step are called
    assert lines[-1].split() == ["gain", "+0.100", "25%", "of", "the", "gap"]
