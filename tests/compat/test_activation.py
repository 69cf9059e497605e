"""`import kd_det` patches nothing; the first import of the stack does, whichever comes first."""

from __future__ import annotations

import pytest

PATCHED = {
    "light": """
import sys
heavy = ("torch", "wrapt", "mmengine", "mmcv", "mmdet", "mmrazor", "mmpretrain")
loaded = [name for name in heavy if name in sys.loaded_with_kd_det]
assert not loaded, loaded
""",
}

_ACTIVE = "import sys, kd_det.compat; assert kd_det.compat._active"
_INACTIVE = "import sys, kd_det.compat; assert not kd_det.compat._active"


def test_import_of_kd_det_is_light(patched):
    assert patched["light"] is None


def test_losses_connectors_and_centers_patch_nothing(run_fresh):
    code = "import kd_det, kd_det.losses, kd_det.connectors, kd_det.centers\n" + _INACTIVE
    assert run_fresh({"alone": code}) == {"alone": None}


@pytest.mark.parametrize(
    "code",
    [
        "import kd_det\nimport mmrazor.models",
        "import kd_det\nimport mmcv.ops",
        "import mmengine\nimport kd_det\nimport mmrazor.models",
        "from mmengine.config import Config\nfrom kd_det.registry import MODELS",
        "from mmengine.registry import MODELS\nassert MODELS.get('kd_det.NDLoss')",
    ],
)
def test_any_use_of_the_stack_is_patched(run_fresh, code):
    assert run_fresh({"used": f"{code}\n{_ACTIVE}"}) == {"used": None}


def test_patches_are_made_once(run_fresh):
    code = """
import sys, kd_det, mmengine
before = list(sys.meta_path)
kd_det.compat.activate()
kd_det.compat.activate_with_stack()
assert sys.meta_path == before
"""
    assert run_fresh({"twice": code}) == {"twice": None}
