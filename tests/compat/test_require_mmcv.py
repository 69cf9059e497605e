"""Without any mmcv, `import kd_det` says what to install."""

from __future__ import annotations

import importlib.util

import pytest

from kd_det.compat import require_mmcv

MENDED = {
    "light": """
import sys
heavy = ("mmcv", "mmdet", "mmrazor", "mmpretrain", "mmengine.runner", "mmengine.model")
loaded = [name for name in heavy if name in sys.loaded_with_kd_det]
assert not loaded, loaded
""",
    "twice": """
import sys, kd_det
before = list(sys.meta_path)
kd_det.compat.activate()
assert sys.meta_path == before
""",
    "missing": """
import importlib.util, sys
ours = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "kd_det"}
for name in ours:
    del sys.modules[name]
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *args: None if name == "mmcv" else real(name, *args)
try:
    import kd_det
finally:
    importlib.util.find_spec = real
    sys.modules.update(ours)
""",
}


def test_import_of_kd_det(mended):
    """It is light, can be repeated, and fails at once where there is no mmcv."""
    assert mended["light"] is None
    assert mended["twice"] is None
    assert mended["missing"].startswith("ImportError: kd_det needs mmcv")


def test_names_both_remedies_where_there_is_no_mmcv(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "mmcv" else real(name)
    )
    with pytest.raises(ImportError, match=r"kd_det\[lite\]") as caught:
        require_mmcv.check()
    assert "mmcv>=2.0.0rc4,<2.2.0" in str(caught.value)


def test_is_content_with_any_mmcv():
    require_mmcv.check()
