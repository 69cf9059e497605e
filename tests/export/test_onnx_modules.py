"""The ONNX export's modules import with any mmdet, and without the extra onnx."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

import pytest

from kd_det.export import onnx


@pytest.mark.parametrize("name", sorted(each.name for each in iter_modules(onnx.__path__)))
def test_a_module_imports(name):
    import_module(f"{onnx.__name__}.{name}")
