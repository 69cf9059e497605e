"""Scoring RoIs with a two-stage detector's box heads, under recorders.

Embeddings and logits are not returned: MMRazor's recorders keep them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from mmdet.models.detectors import TwoStageDetector
from mmdet.models.task_modules import SamplingResult
from mmdet.models.utils import unpack_gt_instances
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox2roi
from mmdet.utils import InstanceList
from mmrazor.models.task_modules.recorder.base_recorder import BaseRecorder
from torch import Tensor

from kd_det.algorithms.heads import box_heads, is_cascade, num_classes
from kd_det.errors import InvalidInputError
from kd_det.recorders import flat
from kd_det.seeds import SAMPLING, Seeds, seeded_cpu


class BoxBranch:
    """The pyramid of images ``[N, 3, H, W]``, and the box heads of a detector on it.

    ``teacher_stage`` says which stages of a cascade score a set of RoIs, see
    :func:`kd_det.algorithms.heads.choose_stage`; it is None for a single box head.
    """

    def __init__(
        self, detector: TwoStageDetector, inputs: Tensor, teacher_stage: str | None
    ) -> None:
        self.head: Any = detector.roi_head
        self.teacher_stage = teacher_stage
        self.num_sets = self.head.num_stages if teacher_stage == "same" else 1
        self.feats = detector.extract_feat(inputs)

    @cached_property
    def context(self) -> dict[str, Any]:
        """Features of the image that HTC and SCNet add to those of every RoI."""
        found = {}
        if getattr(self.head, "with_semantic", False):
            found["semantic_feat"] = self.head.semantic_head(self.feats)[1]
        if getattr(self.head, "with_glbctx", False):
            found["glbctx_feat"] = self.head.glbctx_head(self.feats)[1]
        return found

    def score(self, rois: Tensor, index: int) -> dict[str, Any]:
        """Score RoIs ``[n, 5]`` of stage ``index``; returns the results of the (last) box head."""
        if self.teacher_stage is None:
            return self.head._bbox_forward(self.feats, rois)
        if self.teacher_stage == "mean":
            return self._score_by_all(rois)
        stage = index if self.teacher_stage == "same" else self.head.num_stages - 1
        return self.head._bbox_forward(stage, self.feats, rois, **self.context)

    def _score_by_all(self, rois: Tensor) -> dict[str, Any]:
        seen: list[tuple[Tensor, Tensor]] = []
        handles = [
            box_head.fc_cls.register_forward_hook(
                lambda _, inputs, output: seen.append((inputs[0], output))
            )
            for box_head in self.head.bbox_head
        ]
        try:
            for stage in range(self.head.num_stages):
                results = self.head._bbox_forward(stage, self.feats, rois, **self.context)
        finally:
            for handle in handles:
                handle.remove()
        self.head.stage_mean(*zip(*seen))
        return results


def score_proposals(
    detector: TwoStageDetector,
    inputs: Tensor,
    data_samples: SampleList,
    teacher_stage: str | None = None,
) -> Iterator[Tensor]:
    """Score the detector's own proposals; yields labels ``[n]`` after each set of RoIs.

    They are assigned and sampled as in its training. With ``teacher_stage='same'`` each stage
    refines the boxes of the next and samples by rules of its own, otherwise there is one set,
    sampled as for the first stage. No loss runs, and nothing that would need masks. A stage
    without any RoI ends the pass.

    Raises:
        ValueError: If the detector has no ``train_cfg``, which says how.
    """
    if not detector.train_cfg:
        raise InvalidInputError(
            "the teacher has no train_cfg, so nothing says how its proposals are assigned and "
            "sampled; give it one, or take ClassCenterHook(rois='gt')"
        )
    branch = BoxBranch(detector, inputs, teacher_stage)
    metas = [sample.metainfo for sample in data_samples]
    boxes = detector.rpn_head.predict_by_feat(
        *detector.rpn_head(branch.feats),
        batch_img_metas=metas,
        cfg=detector.train_cfg.get("rpn_proposal", detector.test_cfg.rpn),
    )
    heads = box_heads(detector)
    for stage in range(branch.num_sets):
        sampled = _sample(detector, stage, boxes, branch.feats, data_samples)
        rois = bbox2roi([result.priors for result in sampled])
        if len(rois) == 0:
            return
        results = branch.score(rois, stage)
        labels = _labels(sampled, num_classes(detector))
        yield labels
        if stage + 1 < branch.num_sets:
            results = {**results, "rois": rois, "bbox_targets": (labels,)}
            boxes = heads[stage].refine_bboxes(sampled, results, metas)


def score_ground_truth(
    detector: TwoStageDetector,
    inputs: Tensor,
    data_samples: SampleList,
    teacher_stage: str | None = None,
) -> Iterator[Tensor]:
    """Score the annotated boxes; yields their labels ``[n]`` after each stage."""
    branch = BoxBranch(detector, inputs, teacher_stage)
    instances = [sample.gt_instances for sample in data_samples]
    rois = bbox2roi([getattr(i.bboxes, "tensor", i.bboxes) for i in instances])
    labels = torch.cat([i.labels for i in instances])
    for stage in range(branch.num_sets):
        branch.score(rois, stage)
        yield labels


@contextmanager
def samplers_unrecorded(
    detector: TwoStageDetector, recorders: Iterable[BaseRecorder]
) -> Iterator[None]:
    """Drop the records of samplers that score their candidates (OHEM, PISA).

    They call the box branch before it is called with the RoIs that they choose, whose record has
    to be the first.
    """
    recorders = list(flat(recorders))

    def unrecorded(sample: Callable) -> Callable:
        def call(*args: Any, **kwargs: Any) -> Any:
            lengths = [len(recorder.data_buffer) for recorder in recorders]
            try:
                return sample(*args, **kwargs)
            finally:
                for recorder, length in zip(recorders, lengths):
                    del recorder.data_buffer[length:]

        return call

    found = detector.roi_head.bbox_sampler
    # A detector without train_cfg has none.
    samplers = [s for s in (found if is_cascade(detector) else [found]) if s is not None]
    for sampler in samplers:
        sampler.sample = unrecorded(sampler.sample)
    try:
        yield
    finally:
        for sampler in samplers:
            del sampler.sample


def _sample(
    detector: TwoStageDetector,
    stage: int,
    boxes: InstanceList,
    feats: Sequence[Tensor],
    data_samples: SampleList,
) -> list[SamplingResult]:
    """Assign and sample boxes of each image as in the training of ``stage``.

    An image's choice among its boxes does not depend on other images, nor on the rank.
    """
    head = detector.roi_head
    assigner, sampler = head.bbox_assigner, head.bbox_sampler
    if is_cascade(detector):
        assigner, sampler = assigner[stage], sampler[stage]
        head.current_stage = stage  # OHEM asks for it
    annotated, ignored, _ = unpack_gt_instances(data_samples)
    sampled = []
    for i, found in enumerate(boxes):
        found.priors = found.pop("bboxes")
        assigned = assigner.assign(found, annotated[i], ignored[i])
        own_feats = [level[i : i + 1] for level in feats]
        image = zlib.crc32(str(data_samples[i].metainfo.get("img_id", i)).encode())
        with seeded_cpu(Seeds(SAMPLING, stage, image)):
            result = sampler.sample(assigned, found, annotated[i], feats=own_feats)
        # PISA's sampler adds weights of its negatives.
        sampled.append(result[0] if isinstance(result, tuple) else result)
    return sampled


def _labels(sampled: Sequence[SamplingResult], background: int) -> Tensor:
    """Concatenate labels of all RoIs in their order: an image's positives, then its negatives."""
    labels = []
    for result in sampled:
        positive = result.pos_gt_labels
        labels += [positive, positive.new_full((len(result.neg_priors),), background)]
    return torch.cat(labels)
