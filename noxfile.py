"""The matrix: environments as users have them, kd_det installed beside, its tests run in each.

A cell is a file of requirements/matrix, named after its Python. It gets an environment with what
the file names; then pip is asked what kd_det would add or change; then digits are distilled with
the wheel, and the tests that are marked `core` are run. What was found is kept in
docs/results/matrix/<cell>.json, and a cell whose code and requirements are the same is not run
again.

    make matrix                                     all cells
    make matrix CELL=py3.11-torch2.6                one
    make matrix ARGS=--full                         all tests in each; --again: finished cells too
    make matrix ARGS=--failed                       in cells with failures: those, pip, the digits
    make oldest                                     the oldest cell, what matters most of its tests

An environment takes 3 to 6 GB and is removed after its cell; ARGS=--keep leaves it in .nox/.
"""

from __future__ import annotations

import datetime
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import nox

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import _cells  # noqa: E402

REQUIREMENTS = ROOT / "requirements" / "matrix"
RESULTS = ROOT / "docs" / "results" / "matrix"
WORK = ROOT / "work_dirs" / "matrix"  # data, the teacher, trainings
# Wheels of mmcv that were compiled here; compiling takes 12 minutes on two cores.
WHEELS = Path(os.environ.get("KD_DET_WHEELS", Path.home() / ".cache" / "kd_det" / "wheels"))
CELLS = {path.stem: path for path in sorted(REQUIREMENTS.glob("*.txt"), key=_cells.by_version)}
OLDEST = "py3.9-torch2.0"
EDITABLE = "-e.[cls,demo,report,test]"
# import, losses, a distillation with its pre-pass, resume, export, checkpoints with code in them
SMOKE = [
    "tests/test_torch_alone.py",
    "tests/losses",
    "tests/compat/test_activation.py",
    "tests/compat/test_torch_load.py",
    "tests/commands/test_train.py",
    "tests/commands/test_resume.py",
    "tests/commands/test_export.py",
    "tests/export",
]
METHOD, EPOCHS = "review_nd_kd", 2

nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False


PYTHONS = _cells.pythons()


def make_session(cell: str) -> None:
    python = PYTHONS.get(_cells.minor_of(cell), "python{}.{}".format(*_cells.minor_of(cell)))

    @nox.session(name=cell, python=python, tags=["matrix"])
    def session(session: nox.Session) -> None:
        run_cell(session, cell)


for _cell in CELLS:
    make_session(_cell)


@nox.session(default=False, python=next(iter(PYTHONS.values())))
def oldest(session: nox.Session) -> None:
    """The oldest Python here with the oldest packages that it can install."""
    version = next(iter(PYTHONS))
    # torch 2.0 has wheels up to Python 3.11; newer ones take a cell of theirs.
    later = [cell for cell in CELLS if _cells.minor_of(cell) >= version] or list(CELLS)[-1:]
    file = CELLS[OLDEST if version <= (3, 11) else later[0]]
    session.log(f"the oldest Python here is {session.python}, with {file.relative_to(ROOT)}")
    try:
        have = install_stack(session, file)
        pip = ask_pip(session, build_wheel(session), have)
        install_ours(session, EDITABLE)
        failed = run_tests(session, SMOKE)["failed"]
        if failed:
            session.error(f"{len(failed)} tests failed")
        if pip["unwanted"]:
            session.error(f"pip would install {', '.join(pip['unwanted'])}")
    finally:
        clean_up(session)


def run_cell(session: nox.Session, name: str) -> None:
    """All steps of a cell; what each found is kept, also when a later one fails."""
    file = CELLS[name]
    result = RESULTS / f"{name}.json"
    code = state_of_code()
    selection = "all" if "--full" in session.posargs else "core"
    key = dict(code=code, requirements=_cells.digest_of(file), selection=selection)
    deps = "--no-deps" not in file.read_text(encoding="utf-8")
    known = json.loads(result.read_text(encoding="utf-8")) if result.is_file() else {}
    before = known.get("tests") if "--failed" in session.posargs else None
    if before and not before["failed"] and not known["pip"]["unwanted"]:
        session.skip("nothing failed")
    if known.get("key") == key and "tests" in known and "--again" not in session.posargs:
        session.skip("done with this code; ARGS=--again runs it again")
    cell = dict(cell=name, key=key, commit=git("rev-parse", "--short=12", "HEAD"), notes=[])
    cell.update(date=datetime.date.today().isoformat(), python="", packages={})
    failures = []
    try:
        have = install_stack(session, file)
        cell["python"] = session.run("python", "-c", VERSION, silent=True).strip()
        wheel = build_wheel(session)
        cell["pip"] = ask_pip(session, wheel, have)
        if cell["pip"]["unwanted"] and deps:
            failures.append("pip would change the environment")
        install_ours(session, f"{wheel}[demo]", deps)
        packages = installed(session).items()
        cell["packages"] = {n: version for n, version in packages if n.startswith(_cells.STACK)}
        try:
            done = before and "digits" in known and not _cells.compiled(file)
            cell["digits"] = known["digits"] if done else distill_digits(session, name)
        except (nox.command.CommandFailed, OSError):
            failures.append("digits were not distilled")
        install_ours(session, EDITABLE, deps)
        what = ["-m", "core"] if selection == "core" else []
        if before and before["failed"]:
            again = run_tests(session, what + _cells.files_of(before["failed"]))
            tests = _cells.counted_anew(before, again)
            cell["notes"].append(f"the files in which tests failed: run again at {cell['commit']}")
        else:
            tests = before or run_tests(session, what)
        if before:
            cell.update(key=known["key"], commit=known["commit"])
        cell["tests"] = tests
        tests["selection"] = selection
        if tests["failed"]:
            failures.append(f"{len(tests['failed'])} tests failed")
        if _cells.compiled(file) and "digits" in cell:
            cell["notes"].append(without_compiled(session, name, file, cell["digits"]))
    except nox.command.CommandFailed as error:
        failures.append(f"stopped: {error.reason or 'a command failed'}")
    finally:
        clean_up(session)
    cell["notes"] += failures
    write(result, cell)
    if failures:
        session.error("; ".join(failures))


VERSION = "import platform; print(platform.python_version())"


def state_of_code() -> str:
    """Changes whenever the code or its tests do."""
    parts = ("kd_det", "configs", "tests", "setup.py")
    trees = [git("rev-parse", f"HEAD:{part}")[:12] for part in parts]
    changed = git("status", "--porcelain", "--", *parts)
    return " ".join(trees) + (" and changes of " + str(datetime.datetime.now()) if changed else "")


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def install_stack(session: nox.Session, file: Path) -> dict[str, str]:
    """What the user has before; its versions by name."""
    session.install("--upgrade", "pip")
    source = _cells.compiled(file)
    rest = WORK / f"{file.stem}.txt"
    rest.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{line}\n" for line in _cells.lines_of(file) if line not in source]
    rest.write_text("".join(lines), encoding="utf-8")
    session.install("--no-compile", "-r", str(rest))
    for requirement in source:
        session.install(str(compile_mmcv(session, requirement)))
    can_import_opencv(session)
    return installed(session)


def can_import_opencv(session: nox.Session) -> None:
    """Put the build without windows over the other, whose system libraries a bare machine lacks."""
    code = "import cv2; print('imported')"
    output = session.run("python", "-c", code, silent=True, success_codes=[0, 1])
    if "imported" not in output:
        version = installed(session)["opencv-python"]
        headless = f"opencv-python-headless=={version}"
        session.install("--force-reinstall", "--no-deps", headless)


def installed(session: nox.Session) -> dict[str, str]:
    """Versions by name."""
    listed = session.run("python", "-m", "pip", "list", "--format=json", silent=True)
    start = listed.index("[")
    found = json.JSONDecoder().raw_decode(listed[start:])[0]
    return {_cells.canonical(item["name"]): item["version"] for item in found}


def compile_mmcv(session: nox.Session, requirement: str) -> Path:
    """The wheel of mmcv for this Python and torch, from the cache where it is there."""
    python = session.run("python", "-c", VERSION, silent=True).strip().rpartition(".")[0]
    folder = WHEELS / f"py{python}-torch{installed(session)['torch']}"
    pattern = requirement.replace("-", "_").replace("==", "-") + "-*.whl"
    if not list(folder.glob(pattern)):
        session.install("ninja", "psutil", "wheel")
        session.run(
            "python", "-m", "pip", "wheel", "--no-deps", "--no-build-isolation",
            "--no-cache-dir", "-w", str(folder), requirement,
            env={"MMCV_WITH_OPS": "1", "MAX_JOBS": str(os.cpu_count())},
        )  # fmt: skip
    return next(folder.glob(pattern))


def scratch(session: nox.Session) -> Path:
    """A folder that goes with the environment. Not create_tmp(), which tests would use too."""
    folder = Path(session.virtualenv.location) / "scratch"
    folder.mkdir(exist_ok=True)
    return folder


def build_wheel(session: nox.Session) -> Path:
    """kd_det as it is distributed."""
    folder = scratch(session) / "wheel"
    for former in (folder, ROOT / "build"):  # setuptools would pack what lies there
        shutil.rmtree(former, ignore_errors=True)
    session.run("python", "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), ".")
    return next(folder.glob("*.whl"))


def ask_pip(session: nox.Session, wheel: Path, have: dict[str, str]) -> dict[str, object]:
    """What installing kd_det would do here."""
    report = scratch(session) / "report.json"
    command = ["python", "-m", "pip", "install", "-q", "--dry-run", "--report", str(report)]
    session.run(*command, str(wheel))
    plan = _cells.planned(json.loads(report.read_text(encoding="utf-8")))
    return dict(plan=plan, unwanted=_cells.unwanted(plan, have))


def install_ours(session: nox.Session, what: str, deps: bool = True) -> None:
    """kd_det with extras, or without dependencies; all that is there is left as it is."""
    fixed = scratch(session) / "fixed.txt"
    have = {n: v for n, v in installed(session).items() if n not in ("kd-det", "pip")}
    lines = [f"{name}=={version}\n" for name, version in have.items()]
    fixed.write_text("".join(lines), encoding="utf-8")
    pins = ["-c", str(fixed)]
    if deps:
        if session.name in (OLDEST, "oldest"):
            pins += ["-c", "requirements/oldest.txt"]
        session.install(*pins, what)
    else:
        session.install(*pins, *WITHOUT_DEPENDENCIES)
        session.install("--no-deps", "mmrazor==1.0.0", "mmpretrain==1.2.0", what.split("[")[0])


# What kd_det and mmrazor need, where they are installed without it.
WITHOUT_DEPENDENCIES = [
    *("filelock", "joblib", "ordered-set", "safetensors", "wrapt", "einops", "mat4py"),
    *("importlib-metadata", "modelindex", "scikit-learn", "jinja2", "matplotlib", "timm"),
    *("hypothesis", "packaging", "pytest", "pytest-xdist"),
]


def distill_digits(session: nox.Session, name: str) -> dict[str, object]:
    """Two epochs by the installed commands, in a folder outside the clone's."""
    folder = WORK / "digits"
    folder.mkdir(parents=True, exist_ok=True)
    run = WORK / "runs" / name
    shutil.rmtree(run, ignore_errors=True)
    # One thread: cells share their machine, where threads would wait for each other.
    session.env["OMP_NUM_THREADS"] = "1"
    with session.chdir(folder):
        session.run("kd-det", "digits")
        teacher = folder / "teacher" / "student" / "model.pth"
        if not teacher.is_file():  # one for all cells
            begun = ["--resume"] if (folder / "teacher" / "last_checkpoint").is_file() else []
            config = "kd_det::digits/teacher.py"
            session.run("kd-det", "train", config, "--work-dir", "teacher", *begun)
        session.run(
            "kd-det", "train", "kd_det::digits/frcnn_r50_r18.py", "--method", METHOD,
            "--work-dir", str(run), "--cfg-options", f"model.teacher_ckpt={teacher}",
            f"train_cfg.max_epochs={EPOCHS}", f"param_scheduler.1.T_max={EPOCHS}",
        )  # fmt: skip
    return dict(method=METHOD, epochs=EPOCHS, **_cells.read_student(run / "student"))


def without_compiled(session: nox.Session, name: str, file: Path, before: dict[str, object]) -> str:
    """The same training with mmcv-lite instead of a compiled mmcv; how they differ."""
    version = _cells.compiled(file)[0].partition("==")[2]
    session.run("python", "-m", "pip", "uninstall", "-q", "-y", "mmcv")
    session.install("--no-deps", f"mmcv-lite=={version}")
    after = distill_digits(session, f"{name}-lite")
    if after["weights"] == before["weights"]:
        return f"with mmcv-lite {version} instead, the same training ends with the same bits"
    return f"with mmcv-lite {version} instead, other weights: mAP {after['mAP']:.3f}"


def run_tests(session: nox.Session, what: Iterable[str]) -> dict[str, object]:
    """Tests of this clone; failed ones do not end the cell."""
    report = scratch(session) / "tests.xml"
    session.run(
        "python", "-m", "pytest", "-q", "-n", "2", f"--junitxml={report}", *what,
        env={"OMP_NUM_THREADS": "1"}, success_codes=[0, 1],
    )  # fmt: skip
    return _cells.read_tests(report)


def write(result: Path, cell: dict[str, object]) -> None:
    """Keep what a cell found, and the table of all."""
    result.parent.mkdir(parents=True, exist_ok=True)
    result.write_text(json.dumps(cell, indent=1) + "\n", encoding="utf-8")
    write_table()


def write_table() -> None:
    text = INTRODUCTION + _cells.table(RESULTS, list(CELLS))
    RESULTS.with_suffix(".md").write_text(text, encoding="utf-8")


INTRODUCTION = f"""# Where it was run

`make matrix` makes each environment from a file of
`requirements/matrix`, asks pip
what installing kd_det would add, distils digits for {EPOCHS} epochs with the installed
`kd-det train` ({METHOD}, one seed, the same teacher), and runs the tests marked `core`, or all.
Linux, x86-64, CPU.

"""


@nox.session(default=False, python=False)
def table(session: nox.Session) -> None:
    """Write docs/results/matrix.md anew from what is beside it."""
    write_table()


def clean_up(session: nox.Session) -> None:
    """Environments are large."""
    if "--keep" not in session.posargs:
        shutil.rmtree(session.virtualenv.location, ignore_errors=True)
