"""LD as mmdet has it: the same terms, on the positives that the head's own assigner chose."""

from __future__ import annotations

import pytest
import small_dense
import torch
from small import build
from small_dense import batch, detector

from kd_det.algorithms import PositivesRecorder
from kd_det.losses import ld_loss
from kd_det.losses.positives import rows_at

K = 17  # distances of an edge


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    """A GFL with mmdet's LDHead, whose weights are random."""
    torch.manual_seed(0)
    cfg = small_dense.config("gfl")
    loss_ld = dict(type="KnowledgeDistillationKLDivLoss", loss_weight=0.25, T=10)
    cfg.bbox_head.update(type="LDHead", loss_ld=loss_ld)
    model = build(cfg)
    model.bbox_head.load_state_dict(detector("gfl", seed=1).bbox_head.state_dict())
    return model


def test_mmdets_loss_is_ours_weighted_by_scores(model):
    inputs, samples = batch()
    teacher = detector("gfl", seed=2)
    with torch.no_grad():
        t_dists = teacher.bbox_head(teacher.extract_feat(inputs))[1]
    head = model.bbox_head
    outputs: list = []
    recorder = PositivesRecorder("bbox_head")
    recorder.initialize(model)
    handle = head.register_forward_hook(lambda _, __, out: outputs.append(out))
    with recorder:
        losses = head.loss(model.extract_feat(inputs), (None, t_dists), samples)
    handle.remove()
    logits, s_dists = outputs[0]
    positives = recorder.get_record_data(data_idx=0)
    assert sum(map(len, positives)) >= 5
    values = ld_loss(rows_at(s_dists, positives), rows_at(t_dists, positives))
    scores = rows_at(logits, positives).sigmoid().amax(dim=1)
    expected = 0.25 * (scores * values).sum() / K
    torch.testing.assert_close(sum(losses["loss_ld"]), expected)
