"""setup.py declares what the code imports; importing kd_det is cheap; all files are installed."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache

import pytest
from small import ROOT

# Distributions whose modules have another name; several may bring the same module.
MODULES = {
    "mmcv-lite": "mmcv",
    "pillow": "PIL",
    "pyyaml": "yaml",
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
    """Extras hold only what an optional part needs."""
    requirements = declared()
    always = {module_of(r) for r in requirements.pop("")}
    extras = {module_of(r) for requirements in requirements.values() for r in requirements}
    optional = {
        "mmcv": "",  # either mmcv-lite or a compiled mmcv, which pip cannot express
        "mmpretrain": "",
        "sklearn": "kd_det/datasets/",
        "matplotlib": ("benchmarks/", "kd_det/report/"),
        "jinja2": "kd_det/report/",
        "timm": "benchmarks/",
    }
    assert optional.keys() <= extras
    unexpected = {
        module: files
        for module, files in imported().items()
        if module not in always | OPTIONAL | COMES_ALONG
        and not all(f.startswith(optional.get(module, "nowhere")) for f in files)
    }
    assert not unexpected
    assert {"torch", "mmengine", "mmdet", "mmrazor", "sklearn"} <= imported().keys()


def test_every_requirement_has_a_lower_bound():
    for requirements in declared().values():
        for requirement in requirements:
            assert re.search(r">=\d", requirement), requirement


def test_the_pinned_pair_is_within_the_declared_bounds():
    pins = (ROOT / "requirements" / "torch.txt").read_text()
    bounds = dict(requirement.split(">=") for requirement in declared()[""] if ">=" in requirement)
    for name in ("torch", "torchvision"):
        pinned = re.search(rf"^{name}==([\d.]+)$", pins, re.M)[1]
        version, lowest = (tuple(map(int, v.split("."))) for v in (pinned, bounds[name]))
        assert version >= lowest


def test_importing_kd_det_loads_nothing_heavy():
    code = (
        "import sys, kd_det\n"
        "heavy = ('mmdet', 'mmrazor', 'mmcv.ops', 'mmengine.runner', 'mmpretrain', 'sklearn',\n"
        "         'matplotlib', 'jinja2')\n"
        "print(*[m for m in sys.modules for h in heavy if m == h or m.startswith(h + '.')])\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
