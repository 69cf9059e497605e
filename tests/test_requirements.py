"""Installing kd_det changes nothing where mmdet 3.x already runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from small import ROOT
from test_packaging import declared

# What users of mmdet need not have.
OURS = {"mmrazor", "joblib", "safetensors", "wrapt"}
LOWEST, NEWEST = (ROOT / "requirements" / name for name in ("oldest.txt", "torch.txt"))

# Environments of users, by their bug reports, and the ends of what is supported: Python, and the
# versions of what mmdet and torch bring along.
ENVIRONMENTS = {
    "3.9, torch 2.0, mmcv 2.0": (
        "3.9.18",
        "torch 2.0.1, torchvision 0.15.2, mmengine 0.8.5, mmcv 2.0.1, mmdet 3.0.0, numpy 1.23.5, "
        "pillow 9.5.0, rich 12.6.0, filelock 3.12.4, opencv-python 4.7.0.72, "
        "pyyaml 5.4.1",
    ),
    "3.10, torch 2.1, mmcv 2.1": (
        "3.10.13",
        "torch 2.1.2+cu118, torchvision 0.16.2+cu118, mmengine 0.10.7, mmcv 2.1.0, mmdet 3.3.0, "
        "numpy 1.26.4, pillow 10.2.0, rich 13.4.2, filelock 3.13.1, opencv-python 4.11.0.86, "
        "pyyaml 6.0.2",
    ),
    "3.10, torch 2.4, mmcv-lite, opencv without windows": (
        "3.10.13",
        "torch 2.4.1, torchvision 0.19.1, mmengine 0.10.5, mmcv-lite 2.1.0, mmdet 3.2.0, "
        "numpy 1.26.4, pillow 10.4.0, rich 13.8.0, filelock 3.15.4, "
        "opencv-python-headless 4.10.0.84, "
        "pyyaml 6.0.2",
    ),
    "3.10, torch 2.10, mmcv 2.2": (
        "3.10.13",
        "torch 2.10.0, torchvision 0.25.0, mmengine 0.10.7, mmcv 2.2.0, mmdet 3.3.0, numpy 2.2.6, "
        "pillow 12.1.0, rich 14.2.0, filelock 3.20.3, opencv-python 4.12.0.88, "
        "pyyaml 6.0.2",
    ),
    "3.13, everything new": (
        "3.13.0",
        "torch 2.15.0, torchvision 0.29.0, mmengine 0.10.7, mmcv-lite 2.1.0, mmdet 3.3.0, "
        "numpy 2.4.6, pillow 13.0.0, rich 15.0.0, filelock 4.3.1, opencv-python 5.0.0.93, "
        "pyyaml 6.0.2",
    ),
}


def packages(environment: str) -> dict[str, str]:
    return dict(package.split() for package in ENVIRONMENTS[environment][1].split(", "))


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_users_have_all_but_a_few_small_packages(environment):
    found, missing = packages(environment), set()
    for requirement in map(Requirement, declared()[""]):
        if requirement.name not in found:
            missing.add(requirement.name)
        else:
            assert found[requirement.name] in requirement.specifier, requirement
    assert missing == OURS


def test_pythons():
    allowed = SpecifierSet(re.search(r'python_requires="(.+)"', read("setup.py"))[1])
    assert all(python in allowed for python, _ in ENVIRONMENTS.values())
    assert "3.8.18" not in allowed


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_pip_would_install_those_alone(environment, tmp_path):
    """By pip's own resolver, on packages that are nothing but their metadata."""
    venv.create(tmp_path / "env", with_pip=False)
    (site,) = (tmp_path / "env").glob("lib/python*/site-packages")
    for name, version in packages(environment).items():
        for file, text in metadata(name, version).items():
            (site / file).parent.mkdir(exist_ok=True)
            (site / file).write_text(text)
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    lowest = pins(LOWEST)
    write_wheel(wheels, "kd_det", "1.0", declared()[""])
    write_wheel(wheels, "ordered-set", "4.1.0")
    for name in OURS:
        write_wheel(wheels, name, lowest[name], ["ordered-set"] if name == "mmrazor" else [])
    for name in ("torch", "torchvision", "numpy"):  # what pip must not be tempted by
        write_wheel(wheels, name, "99.0")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(tmp_path / "env" / "bin" / "python")]
        + ["install", "--dry-run", "--quiet", "--report", "-", "--no-index"]
        + ["--find-links", str(wheels), "kd_det"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    names = {entry["metadata"]["name"] for entry in json.loads(done.stdout)["install"]}
    assert names == {"kd_det", "ordered-set", *OURS}


def metadata(name: str, version: str, needs: Iterable[str] = ()) -> dict[str, str]:
    """Files of a distribution's metadata by path."""
    folder = f"{name.replace('-', '_')}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {need}" for need in needs]
    wheel = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files = {"METADATA": "\n".join(lines) + "\n", "WHEEL": wheel, "RECORD": ""}
    return {f"{folder}/{file}": text for file, text in files.items()}


def write_wheel(folder: Path, name: str, version: str, needs: Iterable[str] = ()) -> None:
    path = folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        for entry, text in metadata(name, version, needs).items():
            file.writestr(entry, text)


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def pins(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^([\w-]+)==([\w.]+)$", path.read_text(encoding="utf-8"), re.M))


@pytest.mark.parametrize("extra", ["", "lite", "cls", "demo", "report"])
def test_lower_bounds_are_what_the_oldest_environment_has(extra):
    """That of a bound is the first release of the pinned series: 12.0 where 12.6.0 is pinned."""
    oldest = pins(LOWEST)
    for requirement in map(Requirement, declared()[extra]):
        pinned = oldest[requirement.name]
        (bound,) = [s.version for s in requirement.specifier if s.operator == ">="]
        assert pinned in requirement.specifier
        assert pinned.split(".")[:2] == bound.split(".")[:2], requirement


def test_the_newest_pair_is_within_the_bounds():
    newest = pins(NEWEST)
    for requirement in map(Requirement, declared()[""]):
        if requirement.name in newest:
            assert newest.pop(requirement.name) in requirement.specifier
    assert not newest
