"""The teacher is read, run and never touched, whatever kind of model it is."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from small_cls import CLS, batch, build_classifier, build_distiller, give_random_centers, losses_of

from kd_det import TeacherDistill
from kd_det.algorithms import CheckpointError, WiringError
from kd_det.recipes import load_named


@pytest.fixture
def cfg() -> Config:
    return load_named(CLS / "digits" / "review_nd.py")


@pytest.fixture
def model(cfg: Config):
    model = build_distiller(cfg)
    give_random_centers(model)
    return model


@pytest.mark.parametrize("fails", [False, True])
def test_records_are_dropped_after_a_step(model, fails: bool):
    if fails:
        model.distiller.distill_losses["loss_review"].forward = None
    with pytest.raises(TypeError) if fails else nullcontext():
        losses_of(model, batch(10, 8))
    for side in ("student", "teacher"):
        recorders = getattr(model.distiller, f"{side}_recorders").recorders
        assert all(recorder.data_buffer == [] for recorder in recorders.values())


def test_the_teacher_is_no_part_of_parameters_and_goes_along(model):
    teacher = {id(p) for p in model.teacher.parameters()}
    assert teacher and not teacher & {id(p) for p in model.parameters()}
    model.double()
    assert all(p.dtype == torch.float64 for p in model.teacher.parameters())
    assert model.get_submodule("teacher.backbone") is model.teacher.backbone


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_teacher_with_weights_that_are_not_finite_is_refused(cfg, tmp_path: Path, value: float):
    weights = build_classifier(cfg.model.teacher).state_dict()
    weights["head.fc.bias"][3] = value
    torch.save(weights, tmp_path / "teacher.pth")
    cfg.model.update(teacher_ckpt=str(tmp_path / "teacher.pth"), data_preprocessor=None)
    with pytest.raises(CheckpointError, match=r"teacher\.pth.*NaN or infinite.*head\.fc\.bias"):
        build_classifier(cfg.model)


def test_an_error_in_a_loss_says_what_it_was_given(cfg):
    def fail(**_: object) -> None:
        raise ValueError("not this batch")

    model = build_distiller(cfg)
    give_random_centers(model)
    model.distiller.distill_losses["loss_review"].forward = fail
    with pytest.raises(ValueError, match="not this batch") as raised:
        losses_of(model, batch(10, 8))
    assert any("loss_review" in note and "head.fc" in note for note in raised.value.__notes__)


def test_a_loss_that_does_not_fit_is_told_when_the_model_is_built(cfg):
    cfg.model.distiller.connectors.review.in_channels = [4, 8, 16, 17]
    with pytest.raises(WiringError, match=r"loss_review.*head\.fc.*level 3 expected a student map"):
        build_distiller(cfg)


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


def test_a_teacher_with_another_normalisation_gets_its_own(cfg):
    own = dict(mean=[10.0, 20.0, 30.0], std=[2.0, 4.0, 8.0], to_rgb=True)
    cfg.model.teacher.data_preprocessor = dict(type="mmpretrain.ClsDataPreprocessor", **own)
    model = build_distiller(cfg)
    data = batch(10, 8)
    ours = model.data_preprocessor(data, training=False)["inputs"]
    theirs = model.teacher.data_preprocessor(data, training=False)["inputs"]
    torch.testing.assert_close(model.teacher_input(ours, data["data_samples"]), theirs)
    assert (ours - theirs).abs().max() > 1


def test_a_teacher_without_a_normalisation_of_its_own_gets_the_students_batch(cfg):
    model = build_distiller(cfg)
    x = torch.rand(2, 3, 8, 8)
    assert model.teacher_input(x, None) is x
    assert model.teacher_input.preprocessor is model.data_preprocessor


def test_a_stopped_distillation_needs_no_teacher(model, monkeypatch):
    monkeypatch.setattr(model, "distillation_stopped", True)
    monkeypatch.setattr(model.teacher, "forward", None)
    assert losses_of(model, batch(10, 8)).keys() == {"student.loss"}


LOGITS = dict(
    type="mmrazor.ConfigurableDistiller",
    student_recorders=dict(logits=dict(type="ModuleOutputs", source="head.fc")),
    teacher_recorders=dict(logits=dict(type="ModuleOutputs", source="head.fc")),
    distill_losses=dict(loss_kd=dict(type="mmrazor.KLDivergence")),
    loss_forward_mappings=dict(
        loss_kd=dict(
            preds_S=dict(recorder="logits", from_student=True),
            preds_T=dict(recorder="logits", from_student=False),
        )
    ),
)


def test_what_the_teacher_computes_first_is_delivered_to_the_student(cfg):
    cfg.model.distiller = dict(
        **LOGITS,
        distill_deliveries=dict(
            pooled=dict(
                type="MethodOutputs",
                max_keep_data=1,
                method_path="mmpretrain.models.heads.LinearClsHead.pre_logits",
            )
        ),
    )
    cfg.model.architecture = cfg.model.teacher.copy()
    model = build_distiller(cfg)
    assert model.probe.name == "image"
    model.student.head.load_state_dict(model.teacher.head.state_dict())
    for _ in range(2):
        assert losses_of(model, batch(10, 8))["distill.loss_kd"].abs() < 1e-6
    model.student.backbone.forward = None
    for _ in range(2):  # the queue, of one entry, is emptied when a step fails
        with pytest.raises(TypeError):
            losses_of(model, batch(10, 8))


@pytest.mark.filterwarnings("default::DeprecationWarning")
def test_old_names_of_algorithm_and_option_stay_valid(cfg):
    cfg.model.architecture = cfg.model.teacher.copy()
    cfg.model.distiller = LOGITS
    cfg.model.type = "kd_det.FixedTeacherDistill"
    cfg.model.inherit = ["head"]
    with pytest.warns(DeprecationWarning, match="now called init_student_from_teacher") as warned:
        model = build_distiller(cfg)
    assert len([each for each in warned if "init_student" in str(each.message)]) == 1
    assert isinstance(model, TeacherDistill)
    model.init_weights()
    for name, same in (("head.fc", True), ("backbone.conv1", False)):
        weights = [side.get_submodule(name).weight for side in (model.student, model.teacher)]
        assert torch.equal(*weights) == same
