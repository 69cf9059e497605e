"""Scoring RoIs: the pre-pass sees what mmdet's training would, without running its losses."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from mmrazor.models.task_modules import ModuleInputsRecorder
from small_heads import CASCADES, CLASSES, CONFIGS, DIM, batch, detector, fresh, in_training
from torch import Tensor, nn

from kd_det.algorithms import heads, roi
from kd_det.centers import ClassCenters
from kd_det.recorders import recording

HEADS = [name for name in CONFIGS if name not in ("sparse", "multi_instance", "sabl_cascade")]
STAGES = [0, 1, 2]


def embeddings_of(box_head: nn.Module, call: Callable[[], object]) -> list[Tensor]:
    """Inputs of ``fc_cls`` while ``call`` runs."""
    seen: list[Tensor] = []
    handle = box_head.fc_cls.register_forward_hook(lambda _, x, __: seen.append(x[0]))
    call()
    handle.remove()
    return seen


def centers(emb: Tensor, labels: Tensor) -> ClassCenters:
    found = ClassCenters(CLASSES + 1, DIM)
    found.update(emb, labels)
    return found


def assert_same_centers(found: ClassCenters, expected: ClassCenters) -> None:
    assert torch.equal(found.counts, expected.counts)
    torch.testing.assert_close(found.means, expected.means)


@pytest.mark.parametrize("name", HEADS)
def test_proposals_are_scored_as_in_training(name):
    model = detector(name).eval()
    stage = "same" if name in CASCADES else None
    inputs, samples = batch()
    with torch.no_grad():
        expected = in_training(model, inputs, samples)
        state = torch.get_rng_state()
        passes = roi.score_proposals(model, inputs, fresh(samples), stage)
        assert len(heads.box_heads(model)) == len(expected)
        for box_head, (emb, labels) in zip(heads.box_heads(model), expected):
            got: list[Tensor] = []
            ours = embeddings_of(box_head, lambda got=got: got.append(next(passes)))
            assert set(labels.tolist()) >= {0, 1, 3, CLASSES}
            assert_same_centers(centers(ours[-1], got[0]), centers(emb, labels))
            if name != "pisa":  # whose sampler shuffles
                assert torch.equal(got[0], labels)
                torch.testing.assert_close(ours[-1], emb)
        assert next(passes, None) is None
    assert name == "pisa" or torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(("stage", "stages"), [("last", [2]), ("mean", STAGES)])
def test_stages_that_score_one_set_of_proposals(stage, stages):
    model = detector("cascade").eval()
    if stage == "mean":
        heads.add_stage_mean(model)
    inputs, samples = batch()
    calls: list[int] = []
    for i, head in enumerate(heads.box_heads(model)):
        head.fc_cls.register_forward_hook(lambda *_, i=i: calls.append(i))
    with torch.no_grad():
        first = next(roi.score_proposals(model, inputs, fresh(samples), "same"))
        calls.clear()
        (labels,) = roi.score_proposals(model, inputs, fresh(samples), stage)
    assert torch.equal(labels, first)
    assert calls == stages


@pytest.mark.parametrize(("name", "passes"), [("faster", 1), ("cascade", 3)])
@pytest.mark.parametrize("objects", [1, 0])
def test_ground_truth_is_scored_by_each_stage(name, passes, objects):
    """Also of an image without objects."""
    model = detector(name).eval()
    inputs, samples = batch()
    samples[1].gt_instances = samples[1].gt_instances[:objects]
    rois = torch.tensor([[0, 4.0, 4, 30, 28], [0, 20, 30, 60, 62], [1, 10, 8, 50, 40]])
    rois = rois[: 2 + objects]
    calls: list[Tensor] = []
    for extractor in heads.roi_extractors(model):
        model.get_submodule(extractor).register_forward_hook(lambda _, x, __: calls.append(x[1]))
    with torch.no_grad():
        labels = list(
            roi.score_ground_truth(model, inputs, samples, "same" if passes == 3 else None)
        )
    assert len(labels) == len(calls) == passes
    assert all(own.tolist() == [1, 3, 0][: 2 + objects] for own in labels)
    assert all(torch.equal(own, rois) for own in calls)


def test_no_losses_no_masks_and_no_history():
    """A teacher that learned from masks is asked for boxes alone; Dynamic R-CNN keeps its own."""
    inputs, samples = batch()
    for sample in samples:
        del sample.gt_instances.masks, sample.gt_sem_seg
    for name in ("mask", "dynamic", "htc"):
        model = detector(name).eval()
        never = [m for head in heads.box_heads(model) for m in (head.loss_cls, head.loss_bbox)]
        never += [model.roi_head.mask_head] if model.roi_head.with_mask else []
        for module in (part for each in never for part in each.modules()):
            module.register_forward_hook(lambda module, *_: pytest.fail(f"{module} ran"))
        with torch.no_grad():
            stage = "same" if name == "htc" else None
            assert list(roi.score_proposals(model, inputs, fresh(samples), stage))
        if name == "dynamic":
            assert model.roi_head.iou_history == model.roi_head.beta_history == []


def test_a_teacher_without_train_cfg_can_score_boxes_but_not_sample():
    model = detector("faster").eval()
    model.train_cfg = model.roi_head.train_cfg = model.roi_head.bbox_sampler = None
    inputs, samples = batch()
    with roi.samplers_unrecorded(model, []), torch.no_grad():
        assert len(list(roi.score_ground_truth(model, inputs, samples))) == 1
        with pytest.raises(ValueError, match=r"no train_cfg.*rois='gt'"):
            next(roi.score_proposals(model, inputs, samples))


def test_nothing_is_yielded_without_rois():
    model = detector("cascade").eval()
    model.train_cfg.rpn_proposal.max_per_img = 0
    for sampler in model.roi_head.bbox_sampler:
        sampler.add_gt_as_proposals = False
    inputs, samples = batch()
    with torch.no_grad():
        assert list(roi.score_proposals(model, inputs, samples, "same")) == []


def test_samplers_are_put_back_and_unrecorded_only_within():
    model = detector("cascade")
    watched = nn.Identity()
    recorder = ModuleInputsRecorder("watched")
    recorder.initialize(nn.ModuleDict({"watched": watched}))

    class Sampler:
        def sample(self, value: int) -> int:
            return watched(value)

    samplers = [Sampler(), Sampler(), Sampler()]
    model.roi_head.bbox_sampler = samplers
    with (
        pytest.raises(KeyError),
        recording([recorder]),
        roi.samplers_unrecorded(model, iter([recorder])),
    ):
        watched(7)
        assert [sampler.sample(i) for i, sampler in enumerate(samplers)] == STAGES
        watched(8)
        assert recorder.data_buffer == [(7,), (8,)]
        raise KeyError
    assert not any(vars(sampler) for sampler in samplers)
    with recording([recorder]):
        assert samplers[2].sample(5) == 5
    assert recorder.data_buffer == [(5,)]
