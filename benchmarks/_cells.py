"""What the cells of the matrix found, and their table; noxfile.py makes them.

Needs the standard library alone: it runs beside nox, outside of the environments that are tested.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

# What users of mmdet have, and what nobody wants replaced.
STACK = ("torch", "torchvision", "numpy", "opencv", "mmengine", "mmcv", "mmdet", "mmrazor", "onedl")
# What kd_det may bring along: its own small needs, and what those need.
SMALL = {
    "kd-det", "filelock", "joblib", "cloudpickle", "safetensors", "wrapt",
    "rich", "markdown-it-py", "mdurl", "pygments", "typing-extensions",
}  # fmt: skip


def pythons() -> dict[tuple[int, int], str]:
    """The interpreters of this machine that kd_det supports, oldest first."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found: dict[tuple[int, int], str] = {}
    names = [f"python3.{minor}" for minor in range(9, 14)]
    candidates = [shutil.which("python3"), *map(shutil.which, names)]
    candidates += map(str, sorted(pyenv.glob("versions/3.*/bin/python")))
    for path in filter(None, [*candidates, sys.executable]):
        code = "import sys, venv, ensurepip; print(*sys.version_info[:2])"
        done = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False)
        if done.returncode == 0:  # a shim of pyenv may lead nowhere
            major, minor = map(int, done.stdout.split())
            found.setdefault((major, minor), path)
    return {version: found[version] for version in sorted(found) if version >= (3, 9)}


def minor_of(cell: str) -> tuple[int, int]:
    """The Python of a cell."""
    major, minor = re.findall(r"\d+", cell)[:2]
    return int(major), int(minor)


def lines_of(file: Path) -> list[str]:
    """Requirements, without comments; files that they name, from wherever they are read."""
    lines = file.read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if line and not line.startswith("#")]
    return [re.sub(r"^(-[cr]) ", rf"\1 {file.parent}/", line) for line in lines]


def digest_of(file: Path) -> str:
    """Changes with the requirements, and with those that they refer to."""
    lines = lines_of(file)
    lines += [text for line in lines if line[0] == "-" for text in lines_of(Path(line[3:]))]
    lines = [line for line in lines if line[0] != "-"]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def compiled(file: Path) -> list[str]:
    """The requirements of a cell that are compiled from source: mmcv but for the lite one."""
    return [line for line in lines_of(file) if line.startswith("mmcv==")]


def canonical(name: str) -> str:
    """The one spelling of a distribution's name that PEP 503 knows."""
    return re.sub(r"[-_.]+", "-", name).lower()


def planned(report: dict[str, Any]) -> dict[str, str]:
    """Versions by name that ``pip install --dry-run --report`` would install."""
    found = (item["metadata"] for item in report["install"])
    return {canonical(meta["name"]): meta["version"] for meta in found}


def unwanted(plan: dict[str, str], installed: dict[str, str]) -> list[str]:
    """What of a plan is more than kd_det's small needs, or replaces what is installed."""
    return [
        f"{name} {version}" + (f" for {installed[name]}" if name in installed else "")
        for name, version in sorted(plan.items())
        if name in installed or name not in SMALL
    ]


def read_tests(report: Path) -> dict[str, Any]:
    """Passed, failed and skipped tests, with reasons, of a JUnit report by pytest."""
    passed, failed = 0, []
    skipped: Counter[str] = Counter()
    for case in ElementTree.parse(report).iter("testcase"):
        outcome = {child.tag: child for child in case}
        if "failure" in outcome or "error" in outcome:
            failed.append(f"{case.get('classname')}::{case.get('name')}")
        elif "skipped" in outcome:
            skipped[_reason(outcome["skipped"])] += 1
        else:
            passed += 1
    return dict(passed=passed, failed=failed, skipped=dict(skipped))


def files_of(tests: Iterable[str]) -> list[str]:
    """The files of tests that :func:`read_tests` names."""
    return sorted({name.partition("::")[0].replace(".", "/") + ".py" for name in tests})


def counted_anew(before: dict[str, Any], again: dict[str, Any]) -> dict[str, Any]:
    """The tests of a cell after those files were run again in which some had failed."""
    still = [name for name in before["failed"] if name in again["failed"]]
    new = [name for name in again["failed"] if name not in still]
    passed = before["passed"] + len(before["failed"]) - len(still) - len(new)
    return dict(passed=passed, failed=still + new, skipped=before["skipped"])


def _reason(skipped: ElementTree.Element) -> str:
    """Why a test was skipped; of a whole module, pytest says it in the text alone."""
    whole = re.search(r"'Skipped: (.*)'\)$", skipped.text or "")
    return whole[1] if whole else str(skipped.get("message"))


def read_student(folder: Path) -> dict[str, Any]:
    """The metric that an exported student was logged with, and a digest of its weights."""
    metadata = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
    content = (folder / "model.safetensors").read_bytes()
    # The header, whose length comes first, has metadata that differ: versions, file names.
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header.pop("__metadata__", None)
    tensors = json.dumps(header, sort_keys=True).encode() + content[end:]
    score = metadata["metrics"]["coco/bbox_mAP"]
    return dict(mAP=score, weights=hashlib.sha256(tensors).hexdigest())


def by_version(path: Path) -> tuple[list[int], str]:
    """The place of a cell's file: by the versions of Python and torch, read as numbers."""
    return [int(number) for number in re.findall(r"\d+", path.stem)], path.stem


def table(folder: Path, names: Sequence[str]) -> str:
    """A row for each cell, run or not, and below them what does not fit into one."""
    lines = [
        "| cell | Python | torch | numpy | opencv | mmcv | mmengine, mmdet, mmrazor "
        "| pip would add | passed | failed | skipped | mAP | commit, date |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    notes = []
    for name in names:
        file = folder / f"{name}.json"
        if file.is_file():
            cell = json.loads(file.read_text(encoding="utf-8"))
            lines.append("| " + " | ".join(_row(cell)) + " |")
            notes += _notes(cell)
        else:
            lines.append(f"| {name} | not run |" + " |" * 11)
    return "\n".join([*lines, *([""] + notes if notes else [])]) + "\n"


def _row(cell: dict[str, Any]) -> Iterable[str]:
    have = cell["packages"]
    tests, pip = cell.get("tests"), cell.get("pip")
    counts = ["", "", ""]
    if tests:
        skipped = sum(tests["skipped"].values())
        counts = [f"{tests['passed']} ({tests['selection']})", str(len(tests["failed"]))]
        counts.append(str(skipped))
    added = ""
    if pip is not None:
        names = [name for name in pip["plan"] if name != "kd-det"]
        added = ", ".join(names) or "nothing"
    score = cell.get("digits")
    return [
        cell["cell"],
        cell["python"],
        have.get("torch", ""),
        have.get("numpy", ""),
        _all(have, "opencv"),
        _all(have, "mmcv", "onedl-mmcv"),
        _all(have, "mmengine", "onedl-mmengine", "mmdet", "onedl-mmdet", "mmrazor"),
        added,
        *counts,
        f"{score['mAP']:.3f}" if score else "",
        f"{cell['commit']}, {cell['date']}",
    ]


def _all(have: dict[str, str], *prefixes: str) -> str:
    """The distributions of these names that are there, with their versions."""
    return ", ".join(f"{n} {v}" for n, v in have.items() if n.startswith(prefixes))


def _notes(cell: dict[str, Any]) -> list[str]:
    name, tests = cell["cell"], cell.get("tests")
    lines = [f"- {name}: {text}" for text in cell.get("notes", [])]
    for item in cell.get("pip", {}).get("unwanted", []):
        lines.append(f"- {name}: pip would install {item}")
    if tests:
        lines += [f"- {name}: failed: `{test}`" for test in tests["failed"]]
        lines += [f"- {name}: skipped {n}: {why}" for why, n in tests["skipped"].items()]
    return lines
