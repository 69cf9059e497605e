"""The teacher is read, run and never touched, whatever kind of model it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from small_cls import CLS, batch, build_classifier, build_distiller, give_random_centers, losses_of

from kd_det.recipes import load_named


@pytest.fixture
def cfg() -> Config:
    return load_named(CLS / "digits" / "review_nd.py")


@pytest.fixture
def model(cfg: Config):
    model = build_distiller(cfg)
    give_random_centers(model)
    return model


def test_teacher_is_in_eval_mode_while_the_student_trains(model):
    losses_of(model, batch(10, 8))
    assert model.architecture.training and model.distiller.training
    assert not any(module.training for module in model.teacher.modules())


def test_a_step_leaves_the_teacher_as_it_was(model):
    before = {k: v.clone() for k, v in model.teacher.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    sum(losses_of(model, batch(10, 8)).values()).backward()
    optimizer.step()
    after = model.teacher.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_records_are_dropped_after_a_step(model):
    losses_of(model, batch(10, 8))
    for side in ("student", "teacher"):
        recorders = getattr(model.distiller, f"{side}_recorders").recorders
        assert all(recorder.data_buffer == [] for recorder in recorders.values())


def test_checkpoints_hold_no_teacher_and_load_strictly(model, cfg):
    state = model.state_dict()
    assert state and not any(key.startswith("teacher.") for key in state)
    build_distiller(load_named(CLS / "digits" / "review_nd.py")).load_state_dict(state)


def test_teacher_comes_from_its_file_and_stays_through_initialisation(cfg, tmp_path: Path):
    torch.manual_seed(3)
    weights = build_classifier(cfg.model.teacher).state_dict()
    torch.save({"state_dict": weights}, tmp_path / "teacher.pth")
    cfg.model.teacher_ckpt = str(tmp_path / "teacher.pth")
    cfg.model.data_preprocessor = cfg.data_preprocessor
    model = build_classifier(cfg.model)
    model.init_weights()
    state = model.teacher.state_dict()
    assert all(torch.equal(state[key], value) for key, value in weights.items())


def test_a_teacher_without_weights_is_refused(cfg):
    cfg.model.teacher_ckpt = None
    with pytest.raises(ValueError, match=r"FixedTeacherDistill expected teacher_ckpt.*None"):
        build_classifier(cfg.model)


def test_a_teacher_of_another_size_is_refused(cfg, tmp_path: Path):
    from kd_det.algorithms import CheckpointError

    other = build_classifier({**cfg.model.teacher, "backbone": cfg.model.architecture.backbone})
    torch.save(other.state_dict(), tmp_path / "other.pth")
    cfg.model.teacher_ckpt = str(tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"backbone\.conv1\.weight"):
        build_classifier(cfg.model)


def test_student_inherits_modules(cfg, tmp_path: Path):
    cfg.model.architecture = cfg.model.teacher.copy()
    cfg.model.distiller = dict(
        type="mmrazor.ConfigurableDistiller",
        student_recorders=dict(fc=dict(type="ModuleOutputs", source="head.fc")),
        teacher_recorders=dict(fc=dict(type="ModuleOutputs", source="head.fc")),
    )
    cfg.model.inherit = ["head"]
    model = build_distiller(cfg)
    model.init_weights()
    assert torch.equal(model.architecture.head.fc.weight, model.teacher.head.fc.weight)
    stem = "backbone.conv1"
    ours, theirs = (m.get_submodule(stem).weight for m in (model.architecture, model.teacher))
    assert not torch.equal(ours, theirs)


def test_a_typo_is_told_when_the_model_is_built(cfg):
    from kd_det.algorithms import WiringError

    cfg.model.distiller.student_recorders.embedding.source = "head.fcc"
    with pytest.raises(WiringError, match=r"'embedding' has source 'head\.fcc'"):
        build_distiller(cfg)


def test_an_error_in_a_loss_says_what_it_was_given(cfg):
    cfg.model.distiller.connectors.review.in_channels = [4, 8, 16, 17]
    model = build_distiller(cfg)
    give_random_centers(model)
    with pytest.raises(ValueError, match="level 3 expected a student map") as raised:
        losses_of(model, batch(10, 8))
    assert any("loss_review" in note and "head.fc" in note for note in raised.value.__notes__)


def test_mixed_images_reach_the_losses_of_class_means(cfg):
    """Mixup gives shares of classes instead of labels."""
    cfg.data_preprocessor.update(
        num_classes=10, batch_augments=dict(augments=[dict(type="Mixup", alpha=1.0)])
    )
    model = build_distiller(cfg)
    give_random_centers(model)
    losses = losses_of(model, batch(10, 8, number=4))
    assert all(loss.isfinite() for loss in losses.values())
    assert losses["distill.loss_nd"] > 0


def test_a_teacher_with_another_normalisation_is_refused(cfg):
    from kd_det.algorithms import WiringError

    own = dict(type="mmpretrain.ClsDataPreprocessor", mean=[0.0] * 3, std=[1.0] * 3)
    cfg.model.teacher.data_preprocessor = own
    with pytest.raises(WiringError, match=r"expected .*\[0\.0.*found .*\[78\.0"):
        build_distiller(cfg)
    cfg = load_named(CLS / "digits" / "review_nd.py")
    cfg.model.teacher.data_preprocessor = cfg.data_preprocessor.copy()
    build_distiller(cfg)


def test_a_stopped_distillation_needs_no_teacher(model, monkeypatch):
    monkeypatch.setattr(model, "distillation_stopped", True)
    monkeypatch.setattr(model.teacher, "forward", None)
    assert losses_of(model, batch(10, 8)).keys() == {"student.loss"}


def test_an_error_of_the_student_is_not_explained_by_the_losses(model, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(model.architecture, "forward", fail)
    with pytest.raises(RuntimeError, match="out of memory") as raised:
        losses_of(model, batch(10, 8))
    assert not hasattr(raised.value, "__notes__")
