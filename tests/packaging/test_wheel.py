"""What is built and installed is what the clone has, and works far from it."""

from __future__ import annotations

import json
import os
import re
import shutil
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from mmengine.config import Config
from small import ROOT

from kd_det.commands import COMMANDS
from kd_det.version import __version__

SOURCES = (
    "CHANGELOG.md", "CITATION.cff", "LICENSE", "MANIFEST.in", "README.md", "configs", "kd_det",
    "model-index.yml", "pyproject.toml", "setup.py", "tools",
)  # fmt: skip
PIP = (sys.executable, "-m", "pip", "-q", "--disable-pip-version-check")
ALONE = ("--no-deps", "--no-index")
OFFLINE = """
import socket
def refuse(*_, **__): raise OSError("there is no network")
socket.getaddrinfo = socket.create_connection = refuse
"""
# Neither the locale nor Python's own mode is UTF-8.
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
NAMES = ["苹果", "груша", "père", *"3456789"]


def run(command: list[object], cwd: Path, **variables: str) -> str:
    """The standard error of a command that knows nothing of the clone."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={**{k: v for k, v in os.environ.items() if k != "PYTHONPATH"}, **variables},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a source distribution, which was built from a copy of the clone's files."""
    folder = tmp_path_factory.mktemp("built")
    (folder / "clone").mkdir()
    for name in SOURCES:
        source, copy = ROOT / name, folder / "clone" / name
        if source.is_dir():
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy)
    build = "import sys, setuptools.build_meta as b; b.build_sdist(sys.argv[1])"
    run([sys.executable, "-c", build, folder], folder / "clone")
    (archive,) = folder.glob("*.tar.gz")
    run([*PIP, "wheel", *ALONE, "--no-build-isolation", archive], folder)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a new environment: the wheel, this one's packages behind it, no network."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    run([*PIP, "--python", programs / "python", "install", *ALONE, wheel], folder)
    (packages,) = {path.parent for path in folder.rglob("kd_det/__init__.py")}
    (packages.parent / "behind.pth").write_text("\n".join(site.getsitepackages()))
    (packages.parent / "sitecustomize.py").write_text(OFFLINE)
    return programs


def test_the_wheel_has_all_files_of_the_clone(wheel):
    """Configs and tools are where mim looks for them."""

    def files(folder: str) -> set[str]:
        found = (path for path in (ROOT / folder).rglob("*") if path.is_file())
        return {path.relative_to(ROOT).as_posix() for path in found if path.suffix != ".pyc"}

    with zipfile.ZipFile(wheel) as archive:
        built = {name for name in archive.namelist() if ".dist-info/" not in name}
    beside = {f"kd_det/.mim/{name}" for name in files("configs") | files("tools")}
    assert built == files("kd_det") | beside | {"kd_det/.mim/model-index.yml"}


def test_all_commands_are_installed(environment, tmp_path):
    def output(*arguments: object) -> str:
        command = [environment / "kd-det", *arguments]
        return subprocess.check_output(command, cwd=tmp_path, encoding="utf-8")

    assert output("--version") == f"kd_det {__version__}\n"
    for name in COMMANDS:
        assert re.search(rf"examples?:\n  kd-det {name}\b", output(name, "--help"))


def test_an_installed_package_trains_in_any_folder_and_locale(
    environment, digits, teacher_ckpt, tmp_path
):
    """Offline, with letters that the locale lacks in all names, and workers that are spawned."""
    place = tmp_path / "мои данные"
    data = Path(shutil.copytree(digits, place / "fruit 1"))
    for path in (data / "annotations").iterdir():
        content = json.loads(path.read_text())
        for category, name in zip(content["categories"], NAMES):
            category["name"] = name
        image = data / path.stem.rpartition("_")[2] / content["images"][0]["file_name"]
        image.rename(image.with_name("фото 1.png"))
        content["images"][0]["file_name"] = "фото 1.png"
        path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    options = [
        "train_dataloader.dataset.indices=8",
        "env_cfg.mp_cfg.mp_start_method=spawn",
        "val_dataloader.num_workers=0",
        "val_dataloader.persistent_workers=False",
        "val_evaluator.classwise=True",
    ]
    said = run(
        [environment / "kd-det", "distill", "kd_det::digits/plain.py", "kd_det::digits/teacher.py"]
        + ["--teacher-ckpt", teacher_ckpt, "--data", "fruit 1", "--epochs", "1"]
        + ["--batch-size", "4", "--work-dir", "run 1", "--cfg-options", *options],
        place,
        **ASCII,
    )
    assert "Logging error" not in said
    (file,) = (place / "run 1").glob("*/*.log")
    log = file.read_text(encoding="utf-8")
    assert all(f"coco/{name}_precision: " in log for name in NAMES[:3])
    assert "Training is done: coco/bbox_mAP " in log
    for path in ("config/distill.py", "config/alone.py", "student/config.py"):
        assert (place / "run 1" / path).read_bytes().isascii(), path
        cfg = Config.fromfile(place / "run 1" / path)
        assert list(cfg.val_dataloader.dataset.metainfo.classes) == NAMES
