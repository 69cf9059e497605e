"""The teacher is run as deep as losses read it, whatever kind of detector it is."""

from __future__ import annotations

from typing import Any

import mmdet
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from small import build
from small_heads import BACKBONE, batch, detector, fresh, watch
from torch import nn

from kd_det import TeacherDistill
from kd_det.algorithms import WiringError

QUERIES = {
    "DINO": "dino/dino-4scale_r50_8xb2-12e_coco.py",
    "DeformableDETR": ("deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py"),
    "DDQDETR": "ddq/ddq-detr-4scale_r50_8xb2-12e_coco.py",
}


def distiller(*sources: str, idx: int | None = None) -> dict[str, Any]:
    """MMRazor's L2 loss on the outputs of each of ``sources``."""
    names = {source: source.replace(".", "_") for source in sources}
    recorders = {names[s]: dict(type="ModuleOutputs", source=s) for s in sources}
    return dict(
        type="mmrazor.ConfigurableDistiller",
        student_recorders=recorders,
        teacher_recorders=recorders,
        distill_losses={f"loss_{name}": dict(type="mmrazor.L2Loss") for name in names.values()},
        loss_forward_mappings={
            f"loss_{name}": dict(
                s_feature=dict(recorder=name, from_student=True, data_idx=idx),
                t_feature=dict(recorder=name, from_student=False, data_idx=idx),
            )
            for name in names.values()
        },
    )


def pair(student: nn.Module, teacher: nn.Module, parts: dict, **options: Any) -> TeacherDistill:
    with DefaultScope.overwrite_default_scope("mmdet"):
        return TeacherDistill(parts, teacher, student, **options).train()


def query_detector(name: str, seed: int) -> nn.Module:
    if name not in MODELS:
        pytest.skip(f"mmdet {mmdet.__version__} has no {name}")
    model = Config.fromstring(f'_base_ = "mmdet::{QUERIES[name]}"', ".py").model
    model.backbone.update(BACKBONE)
    model.neck.in_channels = [16, 32, 64]
    model.num_queries = 12
    for part in ("encoder", "decoder"):
        model[part].num_layers = 1
    if name == "DDQDETR":
        model.dqs_cfg.iou_threshold = 0.99
    torch.manual_seed(seed)
    found = build(model)
    found.init_weights()
    return found


@pytest.mark.parametrize(
    ("name", "source", "probe"),
    [
        ("DINO", "encoder", "dense"),
        ("DeformableDETR", "encoder", "dense"),
        ("DDQDETR", "encoder", "dense"),
        ("DINO", "neck", "features"),
    ],
)
def test_teachers_with_queries(name: str, source: str, probe: str):
    model = pair(
        query_detector(name, 0),
        query_detector(name, 1),
        distiller(source, idx=0 if source == "neck" else None),
    )
    assert model.probe.name == probe
    never = watch(model.teacher.encoder) if probe == "features" else []
    inputs, samples = batch()
    losses = model(inputs, fresh(samples), mode="loss")
    assert losses[f"distill.loss_{source}"] > 0
    assert not never


def retinanet(seed: int) -> nn.Module:
    model = Config.fromstring('_base_ = "mmdet::_base_/models/retinanet_r50_fpn.py"', ".py").model
    model.backbone.update(BACKBONE)
    model.neck.update(in_channels=[8, 16, 32, 64], out_channels=8)
    model.bbox_head.update(in_channels=8, feat_channels=8, stacked_convs=1, num_classes=3)
    torch.manual_seed(seed)
    return build(model)


@pytest.mark.parametrize(
    ("source", "idx", "probe"),
    [("neck", 0, "features"), ("bbox_head.cls_convs.0", None, "dense")],
)
def test_a_one_stage_teacher_runs_no_deeper_than_it_is_read(source, idx, probe):
    model = pair(retinanet(0), retinanet(1), distiller(source, idx=idx))
    assert model.probe.name == probe
    head = watch(model.teacher.bbox_head)
    losses_of_teacher = watch(model.teacher.bbox_head.loss_cls)
    inputs, samples = batch()
    model(inputs, fresh(samples), mode="loss")
    assert len(head) == (probe == "dense") and not losses_of_teacher


@pytest.mark.parametrize(
    ("source", "idx", "named", "probe"),
    [
        ("neck", 0, None, "features"),
        ("rpn_head.rpn_conv", None, None, "dense"),
        ("roi_head.bbox_head.fc_cls", None, None, "roi"),
        ("neck", 0, "roi", "roi"),  # scores nothing, since nothing reads it
    ],
)
def test_a_two_stage_teacher_runs_no_deeper_than_it_is_read(source, idx, named, probe):
    parts = distiller(source, idx=idx)
    model = pair(detector("faster", 0), detector("faster", 1), parts, probe=named)
    assert model.probe.name == probe
    box_head = watch(model.teacher.roi_head.bbox_head.fc_cls)
    rpn_head = watch(model.teacher.rpn_head)
    inputs, samples = batch()
    model(inputs, fresh(samples), mode="loss")
    assert len(rpn_head) == source.startswith("rpn_head")
    assert len(box_head) == source.startswith("roi_head")


def test_rpn_and_rois_are_read_together():
    parts = distiller("rpn_head.rpn_conv", "roi_head.bbox_head.fc_cls")
    model = pair(detector("faster", 0), detector("faster", 1), parts)
    inputs, samples = batch()
    losses = model(inputs, fresh(samples), mode="loss")
    assert all(losses[f"distill.loss_{n}"] > 0 for n in ("rpn_head_rpn_conv",
                                                         "roi_head_bbox_head_fc_cls"))  # fmt: skip


def test_a_pyramid_crosses_kinds():
    parts = distiller("neck", idx=3)
    parts["loss_forward_mappings"]["loss_neck"]["s_feature"]["data_idx"] = 2  # stride 32
    model = pair(retinanet(0), detector("cascade", 1), parts)
    assert model.probe.name == "features"
    inputs, samples = batch()
    assert model(inputs, fresh(samples), mode="loss")["distill.loss_neck"] > 0


def test_a_probe_can_be_named():
    parts = distiller("neck", idx=0)
    model = pair(retinanet(0), retinanet(1), parts, probe="dense")
    assert model.probe.name == "dense"
    with pytest.raises(ValueError, match=r"probe: expected one of .*'dense'.*found 'all'"):
        pair(retinanet(0), retinanet(1), parts, probe="all")
    parts = distiller("bbox_head.cls_convs.0")
    with pytest.raises(WiringError, match=r"'features' runs no more.*neck.*read its.*bbox_head"):
        pair(retinanet(0), retinanet(1), parts, probe="features")


def test_rois_of_a_student_without_an_roi_head_are_refused():
    parts = distiller("neck", idx=0)
    source = "roi_head.bbox_head.fc_cls"
    parts["teacher_recorders"] = dict(neck=dict(type="ModuleOutputs", source=source))
    with pytest.raises(TypeError, match="the student is a RetinaNet"):
        pair(retinanet(0), detector("faster", 1), parts)


def test_transformers_are_told_the_size_of_their_own_input():
    from kd_det.algorithms.probes import DenseProbe

    seen: list[tuple] = []

    def teacher(inputs: Any, samples: Any, mode: str) -> None:  # of no kind that is known
        seen.append((samples[0].batch_input_shape, mode))

    _, samples = batch()
    DenseProbe().run(teacher, torch.zeros(2, 3, 96, 128), samples)
    assert seen == [((96, 128), "tensor")]
    assert samples[0].batch_input_shape == (64, 64)
