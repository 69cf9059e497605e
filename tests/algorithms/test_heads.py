"""Every two-stage head of mmdet learns from its like, and some from one another."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.registry import DefaultScope
from small_heads import CASCADES, CONFIGS, batch, detector, distiller, fresh, make, watch
from torch import Tensor, nn

from kd_det.algorithms import heads

STAGES = [0, 1, 2]
SUPPORTED = [name for name in CONFIGS if name not in ("sparse", "multi_instance")]


def extractors(model: nn.Module) -> list[nn.Module]:
    return [model.get_submodule(name) for name in heads.roi_extractors(model)]


def by_hand(teacher: nn.Module, inputs: Tensor, rois: Tensor, stage: int) -> tuple[Tensor, Tensor]:
    """Embeddings and logits of a box head on RoIs; stage 0 where it is the only one."""
    head = teacher.roi_head
    feats = teacher.extract_feat(inputs)
    cascade = isinstance(head.bbox_head, nn.ModuleList)
    box_head = head.bbox_head[stage] if cascade else head.bbox_head
    calls = watch(box_head.fc_cls)
    arguments = {}
    if getattr(head, "with_semantic", False):
        arguments["semantic_feat"] = head.semantic_head(feats)[1]
    if getattr(head, "with_glbctx", False):
        arguments["glbctx_feat"] = head.glbctx_head(feats)[1]
    head._bbox_forward(*([stage] if cascade else []), feats, rois, **arguments)
    return calls[0].inputs[0], calls[0].output


@pytest.fixture(scope="module", params=SUPPORTED)
def trained(request: pytest.FixtureRequest) -> SimpleNamespace:
    """One step of a pair with the same head, and what was called on the way."""
    name = request.param
    student, teacher = detector(name, seed=0), detector(name, seed=1)
    stages: list = STAGES if name in CASCADES else [None]
    model = make(student, teacher, distiller(stages, stages, name == "pisa"))
    inputs, samples = batch()
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    seen = SimpleNamespace(
        model=model,
        before=before,
        inputs=inputs,
        of_student=[watch(m) for m in extractors(student)],
        of_teacher=[watch(h.fc_cls) for h in heads.box_heads(teacher)],
        never=[watch(teacher.rpn_head), *(watch(h.loss_cls) for h in heads.box_heads(teacher))],
    )
    seen.losses = model(inputs, fresh(samples), mode="loss")
    return seen


def test_every_loss_is_there(trained):
    losses = trained.losses
    distilled = [value for name, value in losses.items() if name.startswith("distill.")]
    assert len(distilled) == 2 * len(trained.of_student)
    assert all(torch.isfinite(value) and value > 0 for value in distilled)
    total, _ = trained.model.parse_losses(losses)
    assert torch.isfinite(total)


def test_teacher_scores_the_student_rois_of_each_stage(trained):
    assert len(trained.of_student) == len(trained.of_teacher)
    for stage, (student_calls, teacher_calls) in enumerate(
        zip(trained.of_student, trained.of_teacher)
    ):
        rois = student_calls[-1].inputs[1]  # the first are those of PISA's sampler
        assert len(rois) > 3
        assert len(teacher_calls) == 1
        with torch.no_grad():
            embeddings, logits = by_hand(trained.model.teacher, trained.inputs, rois, stage)
        assert torch.equal(teacher_calls[0].inputs[0], embeddings)
        assert torch.equal(teacher_calls[0].output, logits)
    assert not any(trained.never)


def test_each_loss_reaches_its_box_head_and_the_backbone(trained):
    model = trained.model
    for stage, box_head in enumerate(heads.box_heads(model.student)):
        for name in ("nd", "kd"):
            model.zero_grad()
            trained.losses[f"distill.loss_{name}{stage}"].backward(retain_graph=True)
            for part in (box_head, model.student.backbone):
                grads = [p.grad for p in part.parameters() if p.grad is not None]
                assert sum(g.abs().sum() for g in grads) > 0
    assert all(p.grad is None for p in model.teacher.parameters())


def test_teacher_stays_as_it_was(trained):
    after = trained.model.teacher.state_dict()
    assert trained.before.keys() == after.keys()
    assert all(torch.equal(value, after[key]) for key, value in trained.before.items())


# Samplers that score their candidates, before the box branch scores those that they chose


@pytest.mark.parametrize("name", ["faster", "cascade"])
def test_hard_example_mining_leaves_no_record(name):
    student, teacher = detector(name, seed=0), detector(name, seed=1)
    cascade = name in CASCADES
    cfgs = student.train_cfg.rcnn if cascade else [student.train_cfg.rcnn]
    for cfg in cfgs:
        cfg.sampler.update(type="OHEMSampler", num=8)
    with DefaultScope.overwrite_default_scope("mmdet"):
        student.roi_head.init_assigner_sampler()
    stages: list = STAGES if cascade else [None]
    model = make(student, teacher, distiller(stages, stages))
    calls = [watch(m) for m in extractors(student)]
    teacher_calls = [watch(m) for m in extractors(teacher)]
    inputs, samples = batch()
    losses = model(inputs, fresh(samples), mode="loss")
    assert len(calls[0]) > 1  # the sampler's, then the box branch's
    assert len(calls) == len(teacher_calls)
    for student_calls, answers in zip(calls, teacher_calls):
        (answer,) = answers
        assert 3 < len(answer.inputs[1]) <= 2 * 8
        assert torch.equal(student_calls[-1].inputs[1], answer.inputs[1])
    losses["distill.loss_kd0"].backward()
    assert heads.box_heads(student)[0].fc_cls.weight.grad.abs().sum() > 0


# Pairs of different heads


@pytest.mark.parametrize(
    ("name", "teacher_name", "option"),
    [
        ("faster", "cascade_mask", "last"),
        ("faster", "cascade_mask", "mean"),
        ("cascade", "faster", None),
        ("cascade", "htc", "last"),
        ("cascade", "htc", "mean"),
    ],
)
def test_teacher_of_other_stages_scores_each_stage_of_the_student(name, teacher_name, option):
    student, teacher = detector(name, seed=0), detector(teacher_name, seed=1)
    keys = list(teacher.state_dict())
    answer: Any = {None: None, "last": 2, "mean": "mean"}[option]
    own: list = STAGES if name == "cascade" else [None]
    model = make(student, teacher, distiller(own, [answer] * len(own)), teacher_stage=option)
    assert model.teacher_stage == option and list(teacher.state_dict()) == keys
    student_calls = [watch(m) for m in extractors(student)]
    given: list[Tensor] = []
    for i in range(len(own)):
        model.distiller.distill_losses[f"loss_kd{i}"].register_forward_hook(
            lambda _, __, kwargs, ___: given.append(kwargs["preds_T"]), with_kwargs=True
        )
    inputs, samples = batch()
    losses = model(inputs, fresh(samples), mode="loss")
    asked = STAGES if option == "mean" else [2]
    assert len(student_calls) == len(given)
    for i, (calls, logits) in enumerate(zip(student_calls, given)):
        assert losses[f"distill.loss_nd{i}"] > 0 and losses[f"distill.loss_kd{i}"] > 0
        with torch.no_grad():
            expected = [by_hand(teacher, inputs, calls[0].inputs[1], each)[1] for each in asked]
        torch.testing.assert_close(logits, sum(expected) / len(expected))


# A student without RoIs: zeros that reach all parameters


def test_cascade_that_breaks_off_gives_zeros_that_reach_all_parameters():
    student, teacher = detector("cascade", seed=0), detector("cascade", seed=1)
    model = make(student, teacher, distiller(STAGES, STAGES))
    student.train_cfg.rpn_proposal.max_per_img = 0
    for sampler in student.roi_head.bbox_sampler:
        sampler.add_gt_as_proposals = False
    later = watch(student.roi_head.bbox_roi_extractor[1])
    inputs, samples = batch()
    losses = model(inputs, fresh(samples), mode="loss")
    assert not later  # mmdet left the cascade after its first stage
    distilled = {name: value for name, value in losses.items() if name.startswith("distill.")}
    assert len(distilled) == 6 and all(value == 0 for value in distilled.values())
    sum(distilled.values()).backward()
    lacking = [n for n, p in student.named_parameters() if p.requires_grad and p.grad is None]
    assert lacking == []


def test_stage_without_rois_leaves_the_losses_of_others_alone():
    student, teacher = detector("cascade", seed=0), detector("cascade", seed=1)
    model = make(student, teacher, distiller(STAGES, STAGES))
    last = student.roi_head.bbox_sampler[2]
    last.num, last.add_gt_as_proposals = 0, False
    inputs, samples = batch()
    losses = model(inputs, fresh(samples), mode="loss")
    for kind in ("nd", "kd"):
        assert losses[f"distill.loss_{kind}0"] > 0 and losses[f"distill.loss_{kind}1"] > 0
        assert losses[f"distill.loss_{kind}2"] == 0


# What does not fit


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("sparse", {}, r"SparseRCNN with roi_head SparseRoIHead: it scores learned queries"),
        ("multi_instance", {}, r"CrowdDet with roi_head MultiInstanceRoIHead: .* several objects"),
        (
            "faster",
            dict(type="TridentRoIHead", num_branch=3, test_branch_idx=1),
            r"FasterRCNN with roi_head TridentRoIHead: its backbone has three outputs",
        ),
    ],
)
@pytest.mark.parametrize("who", ["student", "teacher"])
def test_unsupported_heads_are_refused(who, name, options, reason):
    pair = {side: detector("faster") for side in ("student", "teacher")}
    pair[who] = detector(name, **options)
    with pytest.raises(
        TypeError, match=rf"StandardRoIHead or CascadeRoIHead.*the {who} is a {reason}"
    ):
        make(pair["student"], pair["teacher"], distiller([None], [None]), probe="roi")


def test_head_that_needs_more_than_rois_or_lacks_fc_cls_is_refused():
    model = detector("faster")
    kind = type(model.roi_head)

    class Curious(kind):
        def _bbox_forward(self, x, rois, depth_map):
            return super()._bbox_forward(x, rois)

    model.roi_head.__class__ = Curious
    with pytest.raises(
        TypeError, match=r"Curious: its _bbox_forward does not take x, rois .*depth"
    ):
        heads.require_two_stage(model, "teacher")
    model.roi_head.__class__ = kind
    heads.require_two_stage(model, "teacher")
    model.roi_head.bbox_head.fc_cls = None
    with pytest.raises(TypeError, match="no fc_cls in Shared2FCBBoxHead"):
        heads.require_two_stage(model, "teacher")


def test_options_that_do_not_fit_name_both_sides():
    faster, cascade = detector("faster"), detector("cascade")
    two = detector("cascade")
    two.roi_head.bbox_head = two.roi_head.bbox_head[:2]
    for option, student, teacher, message in (
        (
            "all",
            cascade,
            cascade,
            r"one of \('same', 'last', 'mean'\); the student is a CascadeRCNN of 3",
        ),
        ("same", faster, cascade, "equally many stages; the student is a FasterRCNN with one box"),
        ("same", cascade, two, "CascadeRCNN of 3 stages and the teacher a CascadeRCNN of 2 stages"),
        ("mean", cascade, faster, "needs a teacher that is a cascade; .* FasterRCNN with one box"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            heads.choose_stage(option, student, teacher)
        assert f"found teacher_stage={option!r}" in str(caught.value)
    assert heads.choose_stage(None, cascade, cascade) == "same"
    assert heads.choose_stage(None, cascade, two) == "last"
    assert heads.choose_stage(None, faster, cascade) == "last"
    assert heads.choose_stage(None, cascade, faster) is None


def test_the_dry_run_leaves_no_history_in_dynamic_rcnn():
    model = make(
        detector("dynamic", seed=0), detector("dynamic", seed=1), distiller([None], [None])
    )
    assert model.student.roi_head.iou_history == model.student.roi_head.beta_history == []
