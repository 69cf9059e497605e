"""The documentation is built without a warning, and shows what it should without the network."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from small import ROOT

pytest.importorskip("mkdocs", reason="mkdocs (extra `docs`) not installed")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built strictly: no page outside the navigation, no link or anchor that leads nowhere."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def test_docstrings_are_in_it(site: Path):
    page = (site / "reference" / "losses" / "index.html").read_text()
    assert 'id="kd_det.losses.nd.NDLoss"' in page and "[N, D]" in page
    # Roles of docstrings have become links, and code blocks are none of reStructuredText.
    assert 'href="#kd_det.losses.nd.nd_loss"' in page
    text = "".join(p.read_text() for p in (site / "reference").rglob("*.html"))
    assert not re.findall(r":(?:func|class|meth|mod|data):<code>|code-block::", text)


def test_parts_that_follow_the_code_are_in_it(site: Path):
    from kd_det.commands import COMMANDS
    from kd_det.pairing.methods import METHODS

    text = (site / "methods" / "index.html").read_text()
    assert all(f"<td><code>{name}</code></td>" in text for name in METHODS)
    text = (site / "reference" / "commands" / "index.html").read_text()
    assert all(f"usage: kd-det {name}" in text for name in COMMANDS)
    # Links to the reference; those that lead nowhere would have stayed <autoref>.
    text = (site / "reference" / "index.html").read_text()
    assert 'hooks/#kd_det.hooks.class_center_hook.ClassCenterHook"' in text
    assert "<autoref" not in text


def test_formulas_are_shown_without_a_script(site: Path):
    page = (site / "methods" / "index.html").read_text()
    assert page.count("<math") > 10
    assert "arithmatex" not in page


def test_nothing_is_loaded_from_elsewhere(site: Path):
    text = "".join(p.read_text() for p in site.rglob("*.html"))
    assert not re.findall(r'<(?:script|img)[^>]+src="https?:|<link[^>]+href="https?:[^>]+css', text)
