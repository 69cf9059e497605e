"""Without any mmcv, what needs it says what to install."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from kd_det.compat import require_mmcv
from kd_det.errors import MissingPackageError


@pytest.fixture
def no_mmcv(monkeypatch):
    """No mmcv to be found, and nothing imported that needs it."""
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *args: None if name == "mmcv" else real(name)
    )
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    for name in ("mmdet", "mmrazor", "mmpretrain"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.parametrize("package", ["mmdet", "mmrazor"])
def test_names_both_remedies_where_there_is_no_mmcv(no_mmcv, package):
    require_mmcv.patch()
    with pytest.raises(
        MissingPackageError, match=rf"(?s)^{package} needs mmcv.*\[lite\]"
    ) as caught:
        __import__(package)
    assert "mmcv>=2.0.0rc4,<2.2.0" in str(caught.value)


def test_others_are_imported_without_mmcv(no_mmcv):
    require_mmcv.patch()
    import mmengine  # noqa: F401

    assert importlib.util.find_spec("json") is not None


def test_is_content_with_any_mmcv(monkeypatch):
    before = list(sys.meta_path)
    require_mmcv.patch()
    assert sys.meta_path == before
