"""A step runs a command once, again when something changed, and goes on after a stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small import ROOT

from kd_det.commands import steps
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


def test_sigterm_while_a_command_is_started_ends_it_too(step, monkeypatch):
    started: list[subprocess.Popen] = []

    class Interrupted(subprocess.Popen):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            if sys.executable in args[0]:
                started.append(self)
                os.kill(os.getpid(), signal.SIGTERM)

    one = step("one")
    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(SystemExit):
        steps.run_steps([one])
    assert started[0].poll() is not None
