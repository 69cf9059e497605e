"""The documentation is built without a warning."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from small import ROOT


def test_the_site_is_built(tmp_path: Path):
    """Strictly: no page is left out of the navigation, no link and no anchor leads nowhere."""
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "reference" / "losses" / "index.html").read_text()
    assert 'id="kd_det.losses.nd.NDLoss"' in page
    assert "(N, C)" in page or "[N, D]" in page
    # Roles of docstrings have become links.
    assert ":func:`" not in page and 'href="#kd_det.losses.nd.nd_loss"' in page
