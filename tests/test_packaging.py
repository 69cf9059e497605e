"""setup.py declares what the code imports; importing kd_det is cheap; torch is pinned once."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from small import ROOT

# Distributions whose modules have another name; several may bring the same module.
MODULES = {
    "mmcv-lite": "mmcv",
    "pillow": "PIL",
    "scikit-learn": "sklearn",
}
# Compatibility is for modules that may be there or not: setuptools (pkg_resources), mmcls.
OPTIONAL = {"pkg_resources", "setuptools", "mmcls"}
# mmengine needs it too, and takes any of its builds.
COMES_ALONG = {"cv2"}


def declared() -> dict[str, list[str]]:
    """Requirements by extra; '' holds those that are always installed."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    (call,) = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "setup"
    ]
    values = {k.arg: k.value for k in call.keywords}
    return {
        "": ast.literal_eval(values["install_requires"]),
        **ast.literal_eval(values["extras_require"]),
    }


def module_of(requirement: str) -> str:
    name = re.split(r"[\s<>=!~\[;]", requirement, maxsplit=1)[0]
    return MODULES.get(name, name.replace("-", "_"))


@cache
def imported() -> dict[str, set[str]]:
    """Top-level modules that kd_det/ and benchmarks/ import, and the files that do."""
    found: dict[str, set[str]] = {}
    own = {p.stem for p in (ROOT / "benchmarks").iterdir()} | {"kd_det"}
    for path in [*(ROOT / "kd_det").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            for name in {n.split(".")[0] for n in names} - own - sys.stdlib_module_names:
                found.setdefault(name, set()).add(str(path.relative_to(ROOT)))
    return found


NEEDS_NAMES = pytest.mark.skipif(
    sys.version_info < (3, 10), reason="Python 3.10 was the first to name its standard modules"
)


@NEEDS_NAMES
def test_every_import_is_declared():
    known = {module_of(r) for requirements in declared().values() for r in requirements}
    undeclared = {m: f for m, f in imported().items() if m not in known | OPTIONAL | COMES_ALONG}
    assert not undeclared
    assert {"torch", "mmengine", "mmdet", "mmrazor", "sklearn"} <= imported().keys()


@NEEDS_NAMES
def test_imports_of_the_core_are_always_installed():
    """Extras hold only what an optional part needs."""
    always = {module_of(r) for r in declared()[""]}
    extra = {m: f for m, f in imported().items() if m not in always | OPTIONAL | COMES_ALONG}
    allowed = {
        "mmcv": "",  # either mmcv-lite or a compiled mmcv, which pip cannot express
        "mmpretrain": "",
        "sklearn": "kd_det/datasets/",
        "matplotlib": ("benchmarks/", "kd_det/report/"),
        "jinja2": "kd_det/report/",
    }
    unexpected = {
        module: files
        for module, files in extra.items()
        if module not in allowed or not all(f.startswith(allowed[module]) for f in files)
    }
    assert not unexpected


def test_every_requirement_has_a_lower_bound():
    for requirements in declared().values():
        for requirement in requirements:
            assert re.search(r">=\d", requirement), requirement


def test_torch_is_pinned_in_one_place():
    ours = ROOT / "requirements" / "torch.txt"
    pins = dict(re.findall(r"^(torch|torchvision)==([\d.]+)$", ours.read_text(), re.M))
    assert pins.keys() == {"torch", "torchvision"}
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.splitlines()
    # Unpacked without git, there is nothing but the project's own files in these folders.
    folders = ("kd_det", "configs", "tools", "benchmarks", "tests", "requirements")
    found = [str(p) for folder in folders for p in (ROOT / folder).rglob("*.*")]
    for name in tracked or [*found, "Makefile", "README.md", "setup.py", "pyproject.toml"]:
        path = ROOT / name
        if (
            ours.parent in path.parents
            or not path.is_file()
            or path.suffix
            not in (*("", ".md", ".py", ".sh", ".toml", ".txt", ".yml", ".yaml", ".cfg"),)
        ):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        assert not re.search(r"\btorch(vision)?\s*==\s*\d", text), name


def test_importing_kd_det_loads_nothing_heavy():
    code = (
        "import sys, kd_det\n"
        "heavy = ('mmdet', 'mmrazor', 'mmcv.ops', 'mmengine.runner', 'mmpretrain', 'sklearn',\n"
        "         'matplotlib', 'jinja2')\n"
        "print(*[m for m in sys.modules for h in heavy if m == h or m.startswith(h + '.')])\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_files_that_are_no_code_are_packaged(tmp_path):
    """A normal installation has the report's template too."""
    copy = shutil.copytree(
        ROOT, tmp_path / "copy", ignore=shutil.ignore_patterns(".*", "work_dirs", "data")
    )
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path / "lib")],
        cwd=copy, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ours = {p.relative_to(ROOT) for p in (ROOT / "kd_det").rglob("*") if p.is_file()}
    built = {p.relative_to(tmp_path / "lib") for p in (tmp_path / "lib").rglob("*") if p.is_file()}
    assert {p for p in ours - built if p.suffix not in (".pyc", ".pyo")} == set()


def test_every_package_is_found_by_setup():
    """A folder without __init__.py would be missing after a normal installation."""
    for path in (ROOT / "kd_det").rglob("*.py"):
        assert (Path(path).parent / "__init__.py").is_file(), path


def test_an_installed_package_has_the_configs(tmp_path):
    """tools/distill.py derives from them, and mim finds them by the index beside them."""
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = tmp_path / "kd_det" / ".mim"
    names = {str(p.relative_to(found)) for p in found.rglob("*") if p.is_file()}
    configs = [p for end in ("py", "yml") for p in (ROOT / "configs").rglob(f"*.{end}")]
    assert names == {str(p.relative_to(ROOT)) for p in configs} | {"model-index.yml"}
