"""Class centers of a dense teacher: its embeddings at the positives of its own assigner."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from dense_parts import nd_parts
from small_dense import CLASSES, batch, detector, pair
from small_heads import fresh
from torch import nn

from kd_det.algorithms import PositivesRecorder
from kd_det.algorithms.embeddings import describe_embeddings, embedding_sources, teacher_embeddings
from kd_det.hooks._origin import digest


class Preprocessed(nn.Module):
    """A data preprocessor of batches that are made already."""

    def forward(self, data: dict, training: bool) -> dict:
        assert not training
        return dict(inputs=data["inputs"], data_samples=fresh(data["data_samples"]))


def model_of(name: str, **options: Any) -> tuple[Any, dict[str, Any]]:
    model = pair(detector(name, 0), detector(name, 1), nd_parts(name), **options)
    model.data_preprocessor = Preprocessed()
    inputs, samples = batch()
    return model, dict(inputs=inputs, data_samples=samples)


@pytest.mark.parametrize("name", ["retinanet", "gfl", "fcos_normed", "rtmdet", "yolox"])
def test_are_the_teachers_maps_at_its_positives(name):
    model, data = model_of(name)
    teacher = model.teacher
    hooks = [len(m._forward_hooks) for m in teacher.modules()]
    ((source, emb, labels),) = teacher_embeddings(model, data)
    assert source == embedding_sources(model)["loss_nd"]
    assert source.startswith("bbox_head.") and "call" not in source
    assert hooks == [len(m._forward_hooks) for m in teacher.modules()]
    assert not any(module.training for module in teacher.modules())
    # One position at a time.
    record = model.distiller.teacher_recorders.recorders["embedding"]
    positives = PositivesRecorder("bbox_head")
    positives.initialize(teacher)
    with record, positives:  # in eval mode as a whole
        teacher.loss(data["inputs"], fresh(data["data_samples"]))
    expected = [
        (maps[n, :, y, x], label)
        for maps, at in zip(record.get_record_data(), positives.get_record_data(data_idx=0))
        for n, y, x, label in at.tolist()
    ]
    assert len(expected) == len(emb) >= 3
    torch.testing.assert_close(emb, torch.stack([row for row, _ in expected]))
    assert labels.tolist() == [label for _, label in expected]
    assert set(labels.tolist()) <= {0, 1, 3} < set(range(CLASSES))


def test_a_head_that_predicts_otherwise_in_evaluation_is_asked_as_in_training():
    model, data = model_of("vfnet")
    ((_, emb, labels),) = teacher_embeddings(model, data)
    assert len(emb) == len(labels) > 3


def test_they_depend_on_how_the_head_assigns():
    from kd_det.algorithms.embeddings import rules

    first, same, other = (detector("fcos", seed) for seed in (0, 1, 2))
    other.bbox_head.center_sample_radius = 9
    assert digest(rules(first, "sampled")) == digest(rules(same, "gt"))
    assert digest(rules(first, "sampled")) != digest(rules(other, "sampled"))
    atss, stricter = (detector("atss", seed) for seed in (0, 0))
    stricter.bbox_head.assigner.topk = 3
    assert digest(rules(atss, "sampled")) != digest(rules(stricter, "sampled"))


def test_are_described():
    model, _ = model_of("gfl")
    (text,) = describe_embeddings(model, "sampled").values()
    assert text.startswith("PyramidRecorder input of bbox_head.gfl_cls (call 0), input of ")
    assert text.endswith("the teacher's positives")


def test_what_cannot_be_gathered_is_named():
    model, data = model_of("gfl")
    del model.teacher.bbox_head.train_cfg
    with pytest.raises(ValueError, match="has no train_cfg, so nothing says which positions"):
        teacher_embeddings(model, data)


def test_a_teacher_in_16_bits_assigns_in_float32():
    plain, data = model_of("gfl")
    model, _ = model_of("gfl", speed=dict(teacher_dtype="bfloat16"))
    seen: set[torch.dtype] = set()
    loss = model.teacher.bbox_head.loss_cls
    loss.register_forward_pre_hook(lambda _, inputs: seen.add(inputs[0].dtype))
    ((_, emb, labels),) = teacher_embeddings(model, data)
    assert seen == {torch.float32}
    ((_, exact, expected),) = teacher_embeddings(plain, data)
    assert torch.equal(labels, expected) and not torch.equal(emb.float(), exact)
    torch.testing.assert_close(emb.float(), exact, rtol=0.05, atol=0.05)
