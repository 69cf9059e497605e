"""Losses, connectors and centers work where nothing but torch is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Nothing of these can be imported, as if they were not installed.
_WITHOUT = """
import sys
from importlib.abc import MetaPathFinder

class Absent(MetaPathFinder):
    NAMES = {"mmengine", "mmcv", "mmdet", "mmrazor", "mmpretrain", "wrapt", "torchvision", "cv2",
             "sklearn", "rich", "pycocotools"}
    def find_spec(self, fullname, path, target=None):
        if fullname.partition(".")[0] in self.NAMES:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)

sys.meta_path.insert(0, Absent())
"""

_USE = {
    "nd": """
import torch
import kd_det.losses.nd
from kd_det.centers import ClassCenters
centers = ClassCenters(2, 3)
centers.update(torch.eye(3)[:2], torch.tensor([0, 1]))
centers.all_reduce()
loss = kd_det.losses.nd.NDLoss(2, 3)
loss.set_centers(centers)
s = torch.ones(2, 3, requires_grad=True)
loss(s, torch.zeros(2, 3), torch.tensor([0, 1])).backward()
assert s.grad.abs().sum() > 0
""",
    "every loss": """
import kd_det.losses
for name in kd_det.losses.__all__:
    getattr(kd_det.losses, name)
kd_det.losses.HCLLoss(), kd_det.losses.CWDLoss(), kd_det.losses.DKDLoss()
""",
    "connectors": """
import torch
from kd_det.connectors import EmbeddingConnector, PyramidConnector, ReviewFusion
fusion = ReviewFusion([3, 4], [5, 6], 2)
assert fusion([torch.ones(2, 3, 4, 4), torch.ones(2, 4, 2, 2)])[0].shape == (2, 5, 4, 4)
""",
    "centers": """
import sys, tempfile, torch
from kd_det.centers import ClassCenters
ClassCenters(2, 3).save(tempfile.mkdtemp() + "/centers.safetensors")
""",
    "package": """
import kd_det
kd_det.__version__
try:
    kd_det.ClassCenterHook
except ModuleNotFoundError as error:
    assert error.name.startswith("mm"), error.name
else:
    raise AssertionError("a hook without MMEngine")
""",
}


@pytest.mark.parametrize("name", _USE)
def test_needs_torch_alone(name):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _WITHOUT + _USE[name]],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
