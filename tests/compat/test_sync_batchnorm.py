"""`sync_bn` converts the student, leaves the teacher alone, and recorders go on recording."""

from __future__ import annotations

import pytest
import torch
from torch.nn import BatchNorm2d, SyncBatchNorm

LEFT_OUT = {
    "sync_batchnorm": """
import torch
from torch import nn
from mmengine.runner import runner
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.student, self.teacher = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
seen = []
model = Model().eval()
model.student.register_forward_hook(lambda module, inputs, output: seen.append(output))
model = runner.convert_sync_batchnorm(model, "torch")
assert type(model.student) is nn.SyncBatchNorm
model.student(torch.zeros(1, 3, 2, 2))
assert seen, "the hook is gone"
assert type(model.teacher) is nn.BatchNorm2d, "the teacher was converted"
"""
}


def test_breaks_without_the_patch(left_out):
    assert left_out["sync_batchnorm"] == "AssertionError: the hook is gone"


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_a_recorder_of_a_batch_norm_goes_on_recording(side):
    from mmengine.runner import runner
    from small_cls import CLS, batch, build_distiller

    from kd_det.recipes import load_named

    cfg = load_named(CLS / "digits" / "kd.py")
    norm = dict(type="ModuleOutputs", source="backbone.bn1")
    cfg.model.distiller.student_recorders.norm = norm
    cfg.model.distiller.teacher_recorders.norm = norm
    model = build_distiller(cfg)
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    model = runner.convert_sync_batchnorm(model, "torch").eval()
    kinds = {type(m) for m in model.student.modules()}
    assert SyncBatchNorm in kinds and BatchNorm2d not in kinds
    assert not any(isinstance(m, SyncBatchNorm) for m in model.teacher.modules())
    assert all(torch.equal(model.state_dict()[key], value) for key, value in weights.items())
    recorders = getattr(model.distiller, f"{side}_recorders")
    with recorders, torch.no_grad():
        getattr(model, side)(model.data_preprocessor(batch(10, 8))["inputs"])
    assert len(recorders.get_recorder("norm").data_buffer) == 1
