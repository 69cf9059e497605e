"""Teacher and student see the same RoIs, and nothing of the teacher changes or is saved."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from small import build, runner
from small_heads import watch
from torch import nn

from kd_det import TeacherDistill
from kd_det.algorithms.dry_run import dry_run
from kd_det.centers import ClassCenters


@pytest.fixture
def model(cfg) -> TeacherDistill:
    model = build(cfg.model)
    give_centers(model)
    return model.train()


def give_centers(model: TeacherDistill) -> None:
    centers = ClassCenters(11, 128)
    centers.update(torch.rand(22, 128), torch.arange(22) % 11)
    model.distiller.distill_losses["loss_nd"].set_centers(centers)


def step(model: TeacherDistill, batch: dict) -> dict[str, torch.Tensor]:
    return model(**model.data_preprocessor(copy.deepcopy(batch), training=True), mode="loss")


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def assert_same(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> None:
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_student_box_head_runs_once_and_teacher_rpn_and_losses_never(model, batch):
    student_head = watch(model.student.roi_head.bbox_head.fc_cls)
    never = [model.teacher.rpn_head, model.teacher.roi_head.bbox_head.loss_cls]
    calls = [watch(m) for module in never for m in module.modules()]
    for name in ("bbox_assigner", "bbox_sampler"):
        setattr(model.teacher.roi_head, name, None)
    losses = step(model, batch)
    assert len(student_head) == 1
    assert not any(calls)
    assert {"distill.loss_review", "distill.loss_nd", "distill.loss_kd"} <= losses.keys()


def test_teacher_stays_in_eval_mode_whatever_is_called(model):
    model.teacher.backbone.add_module("dropout", nn.Dropout(0.5))
    for call in (model.train, model.eval, lambda: model.train(True), model.requires_grad_):
        call()
        assert not any(module.training for module in model.teacher.modules())
    assert model.train().student.backbone.training


def test_all_trainable_parameters_get_a_gradient(model, batch):
    """So that DistributedDataParallel works with find_unused_parameters=False."""
    loss, _ = model.parse_losses(step(model, batch))
    loss.backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_no_sampled_roi_gives_losses_that_still_reach_all_parameters(model, batch):
    """Images without objects whose proposals are all filtered; other ranks may have RoIs."""
    model.student.train_cfg.rpn_proposal.max_per_img = 0
    model.student.roi_head.bbox_sampler.add_gt_as_proposals = False
    losses = step(model, batch)
    loss, _ = model.parse_losses(losses)
    loss.backward()
    assert torch.isfinite(loss)
    assert losses["distill.loss_nd"] == losses["distill.loss_kd"] == 0
    assert losses["distill.loss_review"] > 0
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_bf16_autocast_gives_finite_float32_losses(model, batch):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = step(model, batch)
    for name in ("loss_review", "loss_nd"):
        loss = losses[f"distill.{name}"]
        assert loss.dtype == torch.float32 and torch.isfinite(loss)


def test_training_leaves_the_teacher_alone_and_out_of_checkpoints(cfg):
    run = runner(cfg)
    assert_start_is_logged(log_of(run))
    before = weights(run.model.teacher)
    student = weights(run.model.student)
    run.train()
    assert_same(before, weights(run.model.teacher))
    assert any(not torch.equal(v, student[k]) for k, v in run.model.student.state_dict().items())

    saved = torch.load(Path(cfg.work_dir) / "epoch_1.pth", weights_only=True)["state_dict"]
    assert not [key for key in saved if key.startswith("teacher.")]
    assert any(key.startswith("distiller.connectors.review.abfs") for key in saved)
    assert "distiller.distill_losses.loss_nd.centers" in saved

    cfg.train_cfg.max_epochs = 2
    cfg.resume = True
    resumed = runner(cfg)
    resumed.load_or_resume()
    text = log_of(resumed)
    assert "resumed epoch: 1" in text
    assert "missing keys" not in text and "unexpected key" not in text
    assert_same(before, weights(resumed.model.teacher))
    assert_same(
        {k: v for k, v in saved.items() if k.startswith("architecture.")},
        {f"architecture.{k}": v for k, v in weights(resumed.model.student).items()},
    )


def log_of(run) -> str:
    return (Path(run.log_dir) / f"{run.timestamp}.log").read_text()


def assert_start_is_logged(text: str) -> None:
    for part in (
        "teacher: FasterRCNN, 2.15 M parameters",
        "student: FasterRCNN, 0.79 M parameters",
        "loss_nd: NDLoss, weight 1.0",
        "s_feats: student neck -> review (ReviewFusion), 5 x [1, 64, 40, 40]",
        "labels: student roi_head.bbox_head.loss_cls, [64]",
        "teacher's input: the student's batch\n",
        "of 129 x 129 pixels: [1, 3, 160, 160] to student, [1, 3, 160, 160] to teacher",
    ):
        assert part in text


def test_dry_run_leaves_no_trace(model):
    state, random_state = weights(model), torch.get_rng_state()
    dry_run(model)
    assert_same(state, weights(model))
    assert torch.equal(random_state, torch.get_rng_state())
    assert model.student.training


def test_mmrazor_config_path_builds_both_sides(digits: Path, tmp_path: Path):
    side = dict(cfg_path="mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py", pretrained=False)
    teacher = build_razor(side)
    torch.save(teacher.state_dict(), tmp_path / "teacher.pth")
    model = build(
        dict(
            _scope_="mmrazor",
            type="kd_det.TeacherDistill",
            architecture=side,
            teacher=side,
            teacher_ckpt=str(tmp_path / "teacher.pth"),
            distiller=dict(type="ConfigurableDistiller"),
        )
    )
    assert_same(weights(teacher), weights(model.teacher))


def build_razor(cfg: dict) -> nn.Module:
    from mmrazor.registry import MODELS

    return MODELS.build(cfg)


def test_what_is_recorded_of_the_student_is_the_students_alone(cfg, batch):
    """Also of a method that both sides call, the teacher's while the student's is at work."""
    source = "mmdet.models.roi_heads.bbox_heads.convfc_bbox_head.ConvFCBBoxHead.forward"
    cfg.model.distiller.student_recorders.both = dict(type="MethodOutputs", source=source)
    model = build(cfg.model)
    give_centers(model)
    seen: list[int] = []
    recorder = model.distiller.student_recorders.recorders["both"]
    compute = model._distill_losses

    def look() -> dict:
        seen.append(len(recorder.data_buffer))
        return compute()

    model._distill_losses = look
    step(model.train(), batch)
    assert seen == [1]


def test_teacher_runs_ahead_and_scores_when_the_student_is_done(model, batch):
    order: list[str] = []
    for who in ("teacher", "student"):
        side = getattr(model, who)
        for name in ("neck", "roi_head.bbox_roi_extractor", "roi_head.bbox_head.loss_cls"):
            text = f"{who} {name.rpartition('.')[2]}"
            side.get_submodule(name).register_forward_hook(lambda *_, text=text: order.append(text))
    step(model, batch)
    assert order == [
        "teacher neck",
        "student neck",
        "student bbox_roi_extractor",
        "student loss_cls",
        "teacher bbox_roi_extractor",
    ]


def test_losses_do_not_wait_for_the_device(model, batch):
    """Nothing after both models have run asks for a value, which on a GPU would be a wait."""
    from torch.utils._python_dispatch import TorchDispatchMode

    asked: list[str] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function.__name__.split(".")[0] in {"_local_scalar_dense", "nonzero", "equal"}:
                asked.append(str(function))
            return function(*args, **(kwargs or {}))

    step(model, batch)  # whether there are centers is asked once
    compute = model._distill_losses

    def watched() -> dict:
        with Watch():
            losses = compute()
            sum(losses.values()).backward(retain_graph=True)
        return losses

    model._distill_losses = watched
    step(model, batch)
    assert asked == []
    with Watch():
        torch.ones(2).sum().item()
    assert asked == ["aten._local_scalar_dense.default"]
