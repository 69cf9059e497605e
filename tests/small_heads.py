"""mmdet's own two-stage detectors shrunk to a few channels, and pairs of them."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData, PixelData
from small import build
from torch import Tensor, nn

from kd_det import TeacherDistill
from kd_det.centers import ClassCenters

CLASSES, DIM, SIDE = 10, 16, 64

CONFIGS = {
    "faster": "_base_/models/faster-rcnn_r50_fpn.py",
    "mask": "_base_/models/mask-rcnn_r50_fpn.py",
    "cascade": "_base_/models/cascade-rcnn_r50_fpn.py",
    "cascade_mask": "_base_/models/cascade-mask-rcnn_r50_fpn.py",
    "double": "double_heads/dh-faster-rcnn_r50_fpn_1x_coco.py",
    "dynamic": "dynamic_rcnn/dynamic-rcnn_r50_fpn_1x_coco.py",
    "grid": "grid_rcnn/grid-rcnn_r50_fpn_gn-head_2x_coco.py",
    "htc_without_semantic": "htc/htc-without-semantic_r50_fpn_1x_coco.py",
    "htc": "htc/htc_r50_fpn_1x_coco.py",
    "mask_scoring": "ms_rcnn/ms-rcnn_r50-caffe_fpn_1x_coco.py",
    "pisa": "pisa/faster-rcnn_r50_fpn_pisa_1x_coco.py",
    "point_rend": "point_rend/point-rend_r50-caffe_fpn_ms-1x_coco.py",
    "sabl_cascade": "sabl/sabl-cascade-rcnn_r50_fpn_1x_coco.py",
    "scnet": "scnet/scnet_r50_fpn_1x_coco.py",
    "sparse": "sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py",
    "multi_instance": "crowddet/crowddet-rcnn_r50_fpn_8xb2-30e_crowdhuman.py",
}
CASCADES = ("cascade", "cascade_mask", "htc", "htc_without_semantic", "sabl_cascade", "scnet")

SMALLER: dict[str, Any] = dict(
    num_classes={80: CLASSES, 183: 3},
    in_channels={256: 8, 1024: DIM},
    out_channels={256: 8},
    feat_channels={256: 8},
    conv_out_channels={256: 8, 1024: 8},
    out_conv_channels={256: 8},
    fc_out_channels={1024: DIM},
    fc_channels={256: 8},
    point_feat_channels={64: 8},
    cls_in_channels={256: 8},
    reg_in_channels={256: 8},
    cls_out_channels={1024: DIM},
    reg_offset_out_channels={256: 8},
    reg_cls_out_channels={256: 8},
    num_convs={4: 2, 8: 2, 12: 2},
    sampling_ratio={0: 1},
    max_per_img={1000: 12, 2000: 12},
    nms_pre={1000: 50, 2000: 50},
    # More than there are boxes: all are taken, and nothing is left to chance.
    num={512: 256},
)
BACKBONE = dict(
    type="ResNet",
    depth=18,
    base_channels=8,
    stem_channels=8,
    frozen_stages=-1,
    norm_eval=False,
    init_cfg=None,
)


def shrink(part: Any) -> None:
    """Replace large numbers by small ones, in all of a config."""
    if isinstance(part, list):
        for each in part:
            shrink(each)
    if isinstance(part, dict):
        for key, value in part.items():
            if isinstance(value, (dict, list)):
                shrink(value)
            elif isinstance(value, int):
                part[key] = SMALLER.get(key, {}).get(value, value)


def config(name: str) -> Config:
    """The shrunk config of a detector."""
    model = Config.fromstring(f'_base_ = "mmdet::{CONFIGS[name]}"', ".py").model
    shrink(model)
    model.backbone.update(BACKBONE)
    model.neck.in_channels = [8, 16, 32, 64]
    return model


def detector(name: str, seed: int = 0, **roi_head: Any) -> nn.Module:
    """A shrunk detector; ``roi_head`` is put over that part of its config."""
    cfg = config(name)
    cfg.roi_head.update(roi_head)
    torch.manual_seed(seed)
    model = build(cfg)
    model.init_weights()
    for module in model.modules():
        if isinstance(module, nn.Linear):  # mmdet starts scores and boxes near zero
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
    return model


def batch() -> tuple[Tensor, list[DetDataSample]]:
    """Two images, with two objects and with one."""
    generator = torch.Generator().manual_seed(0)
    samples = []
    for boxes, labels in (
        ([[4.0, 4, 30, 28], [20, 30, 60, 62]], [1, 3]),
        ([[10.0, 8, 50, 40]], [0]),
    ):
        size = (SIDE, SIDE)
        sample = DetDataSample(
            metainfo=dict(
                img_shape=size,
                ori_shape=size,
                pad_shape=size,
                batch_input_shape=size,
                scale_factor=(1.0, 1.0),
            )
        )
        masks = torch.zeros(len(boxes), *size, dtype=torch.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes):
            mask[int(y1) : int(y2), int(x1) : int(x2)] = 1
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor(boxes),
            labels=torch.tensor(labels),
            masks=BitmapMasks(masks.numpy(), *size),
        )
        sample.ignored_instances = InstanceData(
            bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64)
        )
        sample.gt_sem_seg = PixelData(sem_seg=masks.amax(0, keepdim=True).long())
        samples.append(sample)
    return torch.randn(2, 3, SIDE, SIDE, generator=generator), samples


def fresh(samples: list[DetDataSample]) -> list[DetDataSample]:
    """A copy, since mmdet's losses change their data samples."""
    return copy.deepcopy(samples)


# The labels of all RoIs also where a head calls its loss_cls for some of them before, as PISA's.
TARGETS = dict(
    type="MethodOutputs", source="mmdet.models.roi_heads.bbox_heads.bbox_head.BBoxHead.get_targets"
)


def in_training(
    model: nn.Module, inputs: Tensor, samples: list[DetDataSample]
) -> list[tuple[Tensor, Tensor]]:
    """Embeddings and labels of each stage's RoIs in mmdet's own training step."""
    heads = model.roi_head.bbox_head
    heads = list(heads) if isinstance(heads, nn.ModuleList) else [heads]
    seen: list[list[Tensor]] = [[] for _ in heads]

    def spy(head: nn.Module, seen: list[Tensor]) -> Any:
        original = head.get_targets

        def get_targets(*args: Any, **kwargs: Any) -> tuple:
            targets = original(*args, **kwargs)
            seen.append(targets[0])
            return targets

        head.get_targets = get_targets
        return head.fc_cls.register_forward_hook(lambda _, x, __: seen.append(x[0]))

    handles = [spy(head, own) for head, own in zip(heads, seen)]
    model.loss(inputs, fresh(samples))
    for head, handle in zip(heads, handles):
        handle.remove()
        del head.get_targets
    # What a sampler scores comes before.
    return [(own[-2], own[-1]) for own in seen]


def box_head(stage: int | None) -> str:
    return "roi_head.bbox_head" + ("" if stage is None else f".{stage}")


def distiller(
    student: list[int | None], teacher: list[int | str | None], calls_loss_before: bool = False
) -> dict:
    """ND and KD for each stage of the student.

    Args:
        student: Its stages, ``[None]`` for one box head.
        teacher: Which stage of the teacher answers, ``'mean'`` for their mean, for each of them.
        calls_loss_before: Whether the student's first call of ``loss_cls`` is not on all RoIs.
    """
    student_recorders: dict[str, dict] = {}
    teacher_recorders = {}
    losses, mappings = {}, {}
    for i, (ours, theirs) in enumerate(zip(student, teacher)):
        source = f"{box_head(ours)}.fc_cls"
        student_recorders[f"embedding{i}"] = dict(type="ModuleInputs", source=source)
        student_recorders[f"logits{i}"] = dict(type="ModuleOutputs", source=source)
        loss_cls = dict(type="ModuleInputs", source=f"{box_head(ours)}.loss_cls")
        student_recorders[f"targets{i}"] = TARGETS if calls_loss_before else loss_cls
        labels = dict(recorder=f"targets{i}", from_student=True, data_idx=not calls_loss_before)
        # A second record of one module is a second call of the box head.
        record_idx = teacher[:i].count(theirs)
        if theirs == "mean":
            teacher_recorders["mean"] = dict(type="ModuleOutputs", source="roi_head.stage_mean")
            embedding = dict(recorder="mean", data_idx=0)
            logits = dict(recorder="mean", data_idx=1)
        else:
            source = f"{box_head(theirs)}.fc_cls"
            teacher_recorders[f"embedding{theirs}"] = dict(type="ModuleInputs", source=source)
            teacher_recorders[f"logits{theirs}"] = dict(type="ModuleOutputs", source=source)
            embedding = dict(recorder=f"embedding{theirs}", data_idx=0)
            logits = dict(recorder=f"logits{theirs}")
        teacher_side = dict(from_student=False, record_idx=record_idx)
        losses[f"loss_nd{i}"] = dict(
            type="kd_det.NDLoss", num_classes=CLASSES, embed_dim=DIM, background=True
        )
        losses[f"loss_kd{i}"] = dict(type="mmrazor.KLDivergence")
        mappings[f"loss_nd{i}"] = dict(
            s_emb=dict(recorder=f"embedding{i}", from_student=True, data_idx=0),
            t_emb=dict(**embedding, **teacher_side),
            labels=labels,
        )
        mappings[f"loss_kd{i}"] = dict(
            preds_S=dict(recorder=f"logits{i}", from_student=True),
            preds_T=dict(**logits, **teacher_side),
        )
    return dict(
        type="mmrazor.ConfigurableDistiller",
        student_recorders=student_recorders,
        teacher_recorders=teacher_recorders,
        distill_losses=losses,
        loss_forward_mappings=mappings,
    )


def make(student: nn.Module, teacher: nn.Module, parts: dict, **options: Any) -> TeacherDistill:
    """A pair under the distiller's config ``parts``, with random class centers."""
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = TeacherDistill(parts, teacher, student, **options)
    centers = ClassCenters(CLASSES + 1, DIM)
    centers.update(torch.rand(CLASSES + 1, DIM), torch.arange(CLASSES + 1))
    for name, loss in model.distiller.distill_losses.items():
        if name.startswith("loss_nd"):
            loss.set_centers(centers)
    return model.train()


def watch(module: nn.Module) -> list[SimpleNamespace]:
    """Every call of a module."""
    calls: list[SimpleNamespace] = []
    module.register_forward_hook(
        lambda _, inputs, output: calls.append(SimpleNamespace(inputs=inputs, output=output))
    )
    return calls
