"""mmrazor can be imported beside mmcv 2.2."""

from __future__ import annotations

_IMPORT = """
import sys
import mmcv
mmcv.__version__ = {version!r}
sys.modules.pop("mmrazor", None)
import mmrazor
assert mmcv.__version__ == {version!r}
"""


def test_any_mmcv_2_will_do(run_fresh):
    outcome = run_fresh(
        {
            "unpatched": _IMPORT.format(version="2.2.0"),
            "patched": "import kd_det" + _IMPORT.format(version="2.2.0"),
            "older": _IMPORT.format(version="2.1.0"),
            "too old": _IMPORT.format(version="2.0.0rc0"),
            "too new": _IMPORT.format(version="3.0.0"),
        }
    )
    refused = {name for name, error in outcome.items() if error}
    assert refused == {"unpatched", "too old", "too new"}, outcome
    assert all("MMCV==" in outcome[name] for name in refused)
