"""Stages of a cascade for which the student sampled nothing cost zero, and reach all the same."""

from __future__ import annotations

from small_heads import batch, detector, distiller, fresh, make, watch

STAGES = [0, 1, 2]


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
