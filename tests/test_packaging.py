"""setup.py declares what the code imports; importing kd_det is cheap; torch is pinned once."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

from small import ROOT

# Distributions whose modules have another name; several may bring the same module.
MODULES = {
    "mmcv-lite": "mmcv",
    "opencv-python": "cv2",
    "pillow": "PIL",
    "scikit-learn": "sklearn",
}
# Compatibility is for modules that may be there or not: setuptools (pkg_resources), mmcls.
OPTIONAL = {"pkg_resources", "setuptools", "mmcls"}


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


def test_every_import_is_declared():
    known = {module_of(r) for requirements in declared().values() for r in requirements}
    undeclared = {m: f for m, f in imported().items() if m not in known | OPTIONAL}
    assert not undeclared
    assert {"torch", "mmengine", "mmdet", "mmrazor", "sklearn"} <= imported().keys()


def test_imports_of_the_core_are_always_installed():
    """Extras hold only what an optional part needs."""
    always = {module_of(r) for r in declared()[""]}
    extra = {m: f for m, f in imported().items() if m not in always | OPTIONAL}
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
    (ours,) = [p for p in (ROOT / "requirements").iterdir() if "torch" in p.read_text()]
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
            path == ours
            or not path.is_file()
            or path.suffix
            not in (*("", ".md", ".py", ".sh", ".toml", ".txt", ".yml", ".yaml", ".cfg"),)
        ):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        assert not re.search(r"\btorch(vision)?\s*==\s*\d", text), name


def test_the_pinned_pair_is_within_the_declared_bounds():
    pins = (ROOT / "requirements" / "torch.txt").read_text()
    for requirement in declared()[""]:
        name, _, bound = requirement.partition(">=")
        if name in ("torch", "torchvision"):
            pinned = re.search(rf"^{name}==([\d.]+)$", pins, re.M)[1]
            version, lowest = (tuple(map(int, v.split("."))) for v in (pinned, bound))
            assert version >= lowest


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


def test_every_package_is_found_by_setup():
    """A folder without __init__.py would be missing after a normal installation."""
    for path in (ROOT / "kd_det").rglob("*.py"):
        assert (Path(path).parent / "__init__.py").is_file(), path
