"""What the tests of the patches share: the same calls, in a process that never imports kd_det."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import kd_det  # noqa: F401  (patches mmcv before any test module imports mmcv.ops)

ROOT = Path(__file__).resolve().parents[2]

# Runs every snippet by itself and reports its error, or None where it went through.
_RUNNER = """
import json, sys
outcome = {}
for name, code in json.loads(sys.stdin.read()).items():
    try:
        exec(code, {})
        outcome[name] = None
    except BaseException as error:
        outcome[name] = f"{type(error).__name__}: {error}"
print("OUTCOME" + json.dumps(outcome))
"""


def run_snippets(snippets: dict[str, str], prelude: str = "") -> dict[str, str | None]:
    """Errors of the snippets in one fresh process without a GPU and without pkg_resources."""
    blocked = 'import sys; sys.modules["pkg_resources"] = None\n'
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", blocked + prelude + _RUNNER],
        input=json.dumps(snippets),
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)},
    )
    answer = [line for line in done.stdout.splitlines() if line.startswith("OUTCOME")]
    assert done.returncode == 0 and answer, done.stdout + done.stderr
    return json.loads(answer[0][len("OUTCOME") :])


# Makes all patches but those named.
_LEAVE_OUT = """
import kd_det.compat
kd_det.compat.PATCHES = [name for name in kd_det.compat.PATCHES if name not in {names!r}]
"""


def _collected(request: pytest.FixtureRequest, attribute: str) -> dict[str, str]:
    """Snippets under `attribute` in all selected test modules.

    They share one process, since importing mmdet and mmrazor takes seconds.
    """
    snippets: dict[str, str] = {}
    for item in request.session.items:
        snippets.update(getattr(getattr(item, "module", None), attribute, {}))
    return snippets


@pytest.fixture(scope="session")
def run_fresh() -> Callable[..., dict[str, str | None]]:
    """:func:`run_snippets`, for tests that need a process of their own."""
    return run_snippets


@pytest.fixture(scope="session")
def unpatched(request: pytest.FixtureRequest) -> dict[str, str | None]:
    """Errors of the snippets in `BREAKAGE`, without kd_det."""
    return run_snippets(_collected(request, "BREAKAGE"))


@pytest.fixture(scope="session")
def left_out(request: pytest.FixtureRequest) -> dict[str, str | None]:
    """Errors of the snippets in `LEFT_OUT`, without the patches that are their keys.

    For what could not be imported at all without the others.
    """
    snippets = _collected(request, "LEFT_OUT")
    prelude = _LEAVE_OUT.format(names=list(snippets))
    return run_snippets(snippets, prelude)


@pytest.fixture(scope="session")
def patched(request: pytest.FixtureRequest) -> dict[str, str | None]:
    """Errors of the snippets in `PATCHED`, after `import kd_det`.

    They find what that import alone has loaded in `sys.loaded_with_kd_det`.
    """
    prelude = "import kd_det, sys; sys.loaded_with_kd_det = frozenset(sys.modules)\n"
    return run_snippets(_collected(request, "PATCHED"), prelude)
