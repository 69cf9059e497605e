"""The memory of an encoder, as the maps of a pyramid."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_heads import detector as two_stage
from small_heads import fresh, watch
from small_query import batch, detector, pair

from kd_det.algorithms import MemoryRecorder, WiringError
from kd_det.losses import cwd_loss

KINDS = ["detr", "conditional", "dab", "deformable", "deformable_two_stage", "dino"]
MEMORY = dict(type="kd_det.Memory")


def parts(s_feats: dict[str, Any] | None = None, **connectors: Any) -> dict[str, Any]:
    """CWD on the memory."""
    return dict(
        student_recorders=dict(memory=MEMORY),
        teacher_recorders=dict(memory=MEMORY),
        connectors=connectors,
        distill_losses=dict(loss_cwd=dict(type="kd_det.CWDLoss")),
        loss_forward_mappings=dict(
            loss_cwd=dict(
                s_feats=dict(recorder="memory", from_student=True, **(s_feats or {})),
                t_feats=dict(recorder="memory", from_student=False),
            )
        ),
    )


@pytest.mark.parametrize("name", KINDS)
def test_each_position_has_its_own_place(name):
    model = detector(name).eval()
    recorder = MemoryRecorder()
    recorder.initialize(model)
    encoder, neck = watch(model.encoder), watch(model.neck)
    inputs, samples = batch()
    with torch.no_grad(), recorder:
        model(inputs, fresh(samples), mode="tensor")
    memory, maps = encoder[0].output, neck[0].output
    maps = maps if name.startswith("def") or name == "dino" else maps[-1:]
    found = recorder.get_record_data()
    assert [x.shape[2:] for x in found] == [x.shape[2:] for x in maps]
    rows = [x[:, :, y, z] for x in found for y in range(x.shape[2]) for z in range(x.shape[3])]
    assert torch.equal(torch.stack(rows, dim=1), memory)


@pytest.mark.parametrize("name", ["detr", "dino"])
def test_losses_on_pyramids_read_it(name):
    model = pair(detector(name, 0), detector(name, 1), parts())
    assert model.probe.name == "dense"
    memory = {side: watch(getattr(model, side).encoder) for side in ("student", "teacher")}
    inputs, samples = batch()
    loss = model(inputs, fresh(samples), mode="loss")["distill.loss_cwd"]
    s, t = (memory[side][0].output for side in ("student", "teacher"))
    if name == "detr":  # one level: the softmax is over all positions
        expected = cwd_loss([s.transpose(1, 2)[..., None]], [t.transpose(1, 2)[..., None]])
        torch.testing.assert_close(loss, expected)
    loss.backward()
    grads = [p.grad for p in model.student.encoder.parameters()]
    assert any(grad is not None and grad.abs().sum() > 0 for grad in grads)
    assert all(p.grad is None for p in model.teacher.parameters())


def test_widths_are_joined():
    join = dict(type="kd_det.PyramidConnector", in_channels=[32] * 4, out_channels=[64] * 4)
    sides = detector("deformable", 0), detector("deformable", 1, width=64)
    model = pair(*sides, parts(dict(connector="join"), join=join))
    inputs, samples = batch()
    assert model(inputs, fresh(samples), mode="loss")["distill.loss_cwd"] > 0


def test_what_is_not_there_is_named():
    with pytest.raises(WiringError, match=r"'encoder', but the detector FasterRCNN has no"):
        MemoryRecorder().initialize(two_stage("faster"))
    model = detector("detr")
    recorder = MemoryRecorder(pyramid="backbone.layer1")
    recorder.initialize(model)
    inputs, samples = batch()
    said = r"of the positions of 'backbone\.layer1', whose maps"
    with pytest.raises(WiringError, match=said), recorder:
        model(inputs, fresh(samples), mode="tensor")
