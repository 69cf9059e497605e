"""A teacher's embeddings of a batch: of RoIs, of every stage, under any algorithm."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from small_heads import batch, detector, distiller, fresh, in_training, make
from torch import nn

from kd_det.algorithms.embeddings import (
    describe_embeddings,
    embedding_sources,
    teacher_embeddings,
)


class Preprocessed(nn.Module):
    """A data preprocessor of batches that are made already."""

    def forward(self, data: dict, training: bool) -> dict:
        assert not training  # which would mix images
        return dict(inputs=data["inputs"], data_samples=fresh(data["data_samples"]))


def pair(teacher: str, stages: list) -> tuple:
    """A model whose student has one box head for each of ``stages`` of the teacher."""
    name, own = ("cascade", [0, 1, 2]) if len(stages) == 3 else ("faster", [None])
    model = make(detector(name), detector(teacher, seed=1), distiller(own, stages))
    model.data_preprocessor = Preprocessed()
    inputs, samples = batch()
    return model, dict(inputs=inputs, data_samples=samples)


@pytest.mark.parametrize("teacher, stages", [("faster", [None]), ("cascade", [0, 1, 2])])
def test_sampled_rois_are_those_of_the_teachers_own_training(teacher, stages):
    model, data = pair(teacher, stages)
    hooks = [len(m._forward_hooks) for m in model.teacher.modules()]
    with torch.no_grad():
        expected = in_training(model.teacher, data["inputs"], data["data_samples"])
    found = teacher_embeddings(model, data)
    assert [source for source, _, _ in found] == list(embedding_sources(model).values())
    assert len(found) == len(expected)
    for (_, emb, labels), (expected_emb, expected_labels) in zip(found, expected):
        torch.testing.assert_close(emb, expected_emb)
        assert torch.equal(labels, expected_labels)
    assert hooks == [len(m._forward_hooks) for m in model.teacher.modules()]
    recorders = model.distiller.teacher_recorders.recorders.values()
    assert not any(recorder.data_buffer for recorder in recorders)


def test_an_algorithm_of_mmrazor_needs_a_teacher_and_a_distiller_alone():
    model, data = pair("cascade", [0, 1, 2])
    model.teacher.train()
    other = SimpleNamespace(
        teacher=model.teacher, distiller=model.distiller, data_preprocessor=Preprocessed()
    )
    assert embedding_sources(other) == embedding_sources(model)
    of_others, ours = teacher_embeddings(other, data), teacher_embeddings(model, data)
    assert len(of_others) == len(ours)
    for (_, emb, _), (_, same, _) in zip(of_others, ours):
        assert torch.equal(emb, same)
    assert model.teacher.training
    described = describe_embeddings(other, "gt")
    assert described["roi_head.bbox_head.1.fc_cls"] == (
        "ModuleInputsRecorder roi_head.bbox_head.1.fc_cls[0], RoIs gt, teacher_stage same"
    )


def test_wrong_records_and_teachers_are_named():
    model, data = pair("faster", [None])
    mapping = model.distiller.loss_forward_mappings["loss_nd0"]["t_emb"]
    mapping["connector"] = "wider"
    with pytest.raises(ValueError, match=r"'loss_nd0': expected a record of the teacher without"):
        teacher_embeddings(model, data)
    del mapping["connector"]
    roi_head = model.teacher._modules.pop("roi_head")
    with pytest.raises(TypeError, match=r"with an RoI head, a dense head .*found FasterRCNN"):
        describe_embeddings(model, "gt")
    model.teacher.roi_head = roi_head
    del model.distiller.distill_losses["loss_nd0"]
    with pytest.raises(ValueError, match=r"uses class centers, it has \['loss_kd0'\]"):
        teacher_embeddings(model, data)
