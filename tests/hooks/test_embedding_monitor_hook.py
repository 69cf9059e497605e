"""EmbeddingMonitorHook logs what the losses are given, and leaves the training as it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from kd_det.centers import ClassCenters
from kd_det.hooks import EmbeddingMonitorHook
from kd_det.hooks.embedding_monitor_hook import _means
from kd_det.losses import NDLoss

PREFIX = "distill_monitor/nd/"
INTERVAL = "custom_hooks.1.interval"  # the recipe's own hook


def test_means_of_known_embeddings():
    """Class means along the axes; the second sample is of a class that was never seen."""
    centers = ClassCenters(3, 2)
    centers.update(torch.tensor([[2.0, 0.0], [0.0, 4.0]]), torch.tensor([0, 2]))
    loss = NDLoss(num_classes=3, embed_dim=2)
    loss.set_centers(centers)
    student = torch.tensor([[3.0, 4.0], [0.0, 1.0], [0.0, 6.0]])
    teacher = torch.tensor([[1.0, 0.0], [0.0, 3.0], [0.0, -2.0]])
    found = _means(loss, s_emb=student, t_emb=teacher, labels=torch.tensor([0, 1, 2]))
    assert {name: float(value) for name, value in found.items()} == pytest.approx(
        dict(
            student_norm=(5 + 1 + 6) / 3,
            teacher_norm=(1 + 3 + 2) / 3,
            student_cosine=(3 / 5 + 1) / 2,
            teacher_cosine=(1 - 1) / 2,
        )
    )


def test_a_loss_without_class_means_has_no_cosine():
    found = _means(nn.Identity(), s_emb=torch.ones(2, 4).half(), t_emb=torch.zeros(2, 4))
    assert {name: float(value) for name, value in found.items()} == dict(
        student_norm=2.0, teacher_norm=0.0
    )


def test_every_backend_gets_what_the_losses_were_given(make):
    run = make("work", **{INTERVAL: 1})
    given, classes = [], {"student": [], "teacher": []}
    distiller = run.model.distiller
    distiller.distill_losses["loss_nd"].register_forward_hook(
        lambda loss, args, kwargs, out: given.append(kwargs), with_kwargs=True
    )
    for side, seen in classes.items():
        head = getattr(run.model, side).roi_head.bbox_head
        head.fc_cls.register_forward_hook(lambda m, i, out, seen=seen: seen.append(out.argmax(1)))
    run.train()
    (file,) = Path(run.work_dir).glob("*/vis_data/scalars.json")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    logged = [line for line in lines if PREFIX + "agreement" in line]
    # The teacher scores nothing but the student's RoIs, once the pre-pass is done.
    pairs = list(zip(classes["student"], classes["teacher"][-len(given) :]))
    assert len(logged) == len(given) == len(pairs) == 2
    for line, kwargs, (student, teacher) in zip(logged, given, pairs):
        for side, emb in (("student", kwargs["s_emb"].detach()), ("teacher", kwargs["t_emb"])):
            assert line[f"{PREFIX}{side}_norm"] == pytest.approx(float(emb.norm(dim=1).mean()))
            means = distiller.distill_losses["loss_nd"].centers[kwargs["labels"]]
            seen = means.abs().sum(1) > 0
            cosines = torch.cosine_similarity(emb, means)[seen]
            assert line[f"{PREFIX}{side}_cosine"] == pytest.approx(float(cosines.mean()), abs=1e-5)
        assert line[f"{PREFIX}agreement"] == pytest.approx(
            float((student == teacher).float().mean())
        )


def test_training_keeps_its_bits(make):
    first = make("with", **{INTERVAL: 1})
    first.train()
    second = make("without", **{INTERVAL: 99})
    second.train()
    assert len(first.watch.losses) == 2
    assert first.watch.losses == second.watch.losses
    expected = second.model.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in first.model.state_dict().items())


def test_nothing_sits_on_the_losses_in_other_iterations(make):
    run = make("work", **{INTERVAL: 2})
    hooks = []
    loss = run.model.distiller.distill_losses["loss_nd"]
    loss.register_forward_pre_hook(lambda module, args: hooks.append(len(module._forward_hooks)))
    run.train()
    assert hooks == [0, 1]
    assert len(loss._forward_hooks) == 0
    assert len(run.message_hub.get_scalar(f"train/{PREFIX}student_norm").data[0]) == 1


def test_wrong_use_is_told(make):
    run = make("work")
    del run.model.distiller.loss_forward_mappings["loss_nd"]
    with pytest.raises(ValueError, match=r"such as kd_det.NDLoss; this model has \['loss_kd', "):
        EmbeddingMonitorHook().before_train(run)
