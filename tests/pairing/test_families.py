"""Detectors of all families: what is read of them, and pairs within and across kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from small import build
from small_cls import detection_batch, give_random_centers
from small_dense import CONFIGS, config
from zoo import FASTER, STUDENTS, save_teacher, write

from kd_det.errors import MissingPackageError
from kd_det.pairing import PairingError
from kd_det.pairing.compose import pair, read_pair
from kd_det.pairing.detectors import read_detector
from kd_det.pairing.families import find_family
from kd_det.pairing.offers import describe_fitting, find_offers, why_not
from kd_det.pairing.text import read_config

pytestmark = pytest.mark.usefixtures("offline")

DETR = "mmdet::detr/detr_r50_8xb2-150e_coco.py"
DINO = "mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py"
YOLO = "mmdet::yolo/yolov3_d53_8xb8-320-273e_coco.py"


def dense(name: str, folder: Path, **options: Any) -> str:
    """The config of a shrunk dense detector, with its own schedule and data."""
    model = config(name, **options).to_dict()
    path = folder / f"{name}{len(list(folder.iterdir()))}.py"
    base = f"mmdet::{CONFIGS[name]}"
    path.write_text(f"_base_ = {base!r}\nmodel = {dict(model, _delete_=True)!r}\n")
    return str(path)


@pytest.mark.parametrize(
    ("name", "family", "strides", "classes"),
    [
        (FASTER, "two_stage", [4, 8, 16, 32, 64], 3),
        ("mmdet::sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py", "two_stage", [4, 8, 16, 32], 3),
        ("mmdet::retinanet/retinanet_r50_fpn_1x_coco.py", "dense", [8, 16, 32, 64, 128], 3),
        (YOLO, "dense", [32, 16, 8], 3),
        ("mmdet::rpn/rpn_r50_fpn_1x_coco.py", "dense", [4, 8, 16, 32, 64], 1),
        (DETR, "query", [32], 3),
        (DINO, "query", [8, 16, 32, 64], 3),
    ],
)
def test_each_family_is_read(name, family, strides, classes):
    found = read_detector(name, "student", 3)
    assert found.family.name == family
    assert [level.stride for level in found.levels] == strides
    assert found.num_classes == classes


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("solo/solo_r50_fpn_1x_coco", "a SOLO, which segments objects and has no head for boxes"),
        ("mask2former/mask2former_r50_8xb2-lsj-50e_coco", "Mask2Former, which segments"),
        ("mask2former_vis/mask2former_r50_8xb2-8e_youtubevis2019", "Video, which segments objects"),
        ("lad/lad_r50-paa-r101_fpn_2xb8_coco_1x", "a LAD, which has a teacher of its own"),
        ("ld/ld_r18-gflv1-r101_fpn_1x_coco", "which has a teacher of its own"),
        ("glip/glip_atss_swin-t_a_fpn_dyhead_pretrain_obj365", "finds what a text names"),
        ("panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco", "classes of things and of stuff"),
        (
            "ocsort/ocsort_yolox_x_8xb4-amp-80e_crowdhuman-mot17halftrain_test-mot17halfval",
            r"an? OCSORT, which tracks objects .*model\.detector",
        ),
    ],
)
def test_what_is_no_detector_of_boxes_is_refused_before_it_is_built(name, reason, monkeypatch):
    monkeypatch.setattr("kd_det.pairing.detectors._build", pytest.fail)
    with pytest.raises(PairingError, match=reason):
        read_detector(f"mmdet::{name}.py", "teacher")


# Student, teacher, method, and what must have been decided.
PAIRS = {
    "gfl_crosskd": ("gfl", "gfl", "crosskd_pkd", "loss_cross_dists"),
    "retinanet_all": (
        "retinanet",
        "retinanet",
        "robust_nd_kd",
        "compared by loss_cwd, loss_kd, loss_boxes, loss_nd",
    ),
    # Other anchors: the student's pyramid runs through all of the teacher's head.
    "atss_retinanet": (
        "atss",
        "retinanet",
        "crosskd",
        "the student's pyramid runs through all of the teacher's head, by PyramidConnector 8 -> 16",
    ),
    "retinanet_gfl": ("retinanet", "gfl", "crosskd_pkd", "loss_cross_cls, loss_cross_dists"),
    "rtmdet_yolox": (
        "rtmdet",
        "yolox",
        "kd",
        "RTMDetSepBNHead and YOLOXHead are compared by loss_kd, loss_boxes",
    ),
    "gfl_ld": ("gfl", "gfl", "ld", "loss_ld"),
    "gfl_from_faster": ("gfl", FASTER, "robust", "loss_cwd weighs 2, not 10, since the student"),
    # Of narrower heads the biases alone agree with the teacher's: no start.
    "narrow_faster": ("faster", FASTER, "robust", "loss_cwd weighs 2, not 10, since the student"),
    "faster_from_atss": ("faster", "atss", "review", "ReviewFusion"),
}


def test_the_neck_of_a_dense_student_is_fitted(tmp_path, digits):
    made = pair(dense("gfl", tmp_path), dense("gfl", tmp_path), "robust_fit", data=str(digits))
    assert made.cfg.model.init_student_from_teacher == ["neck", "bbox_head"]
    assert dict(type="kd_det.NeckFitHook") in made.cfg.custom_hooks


def test_a_neck_is_fitted_however_much_of_it_the_laterals_are(tmp_path, digits):
    teacher = dense("gfl", tmp_path)
    # A backbone of four times the channels: most of the student's FPN reads it.
    wide = dict(backbone=dict(depth=50), neck=dict(in_channels=[32, 64, 128, 256]))
    path = tmp_path / "wide.py"
    path.write_text(f"_base_ = {teacher!r}\nmodel = {wide!r}\n")
    made = pair(str(path), teacher, "robust_fit", data=str(digits))
    assert made.cfg.model.init_student_from_teacher == ["neck", "bbox_head"]
    assert dict(type="kd_det.NeckFitHook") in made.cfg.custom_hooks


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_trains_a_step(name, tmp_path, digits):
    learner, teacher, method, decided = PAIRS[name]
    if learner == "faster":
        learner = write(tmp_path / "s.py", **STUDENTS["narrow"])
    else:
        learner = dense(learner, tmp_path)
    teacher = teacher if "::" in teacher else dense(teacher, tmp_path, width=16)
    made = pair(learner, teacher, method, data=str(digits), epochs=1)
    assert decided in made.describe()
    path = tmp_path / "config" / "distill.py"
    made.write(path)
    cfg = Config.fromfile(path)
    assert cfg.to_dict() == made.cfg.to_dict()
    cfg.model.teacher_ckpt = save_teacher(cfg, tmp_path / "teacher.pth")
    model = build(cfg.model)
    give_random_centers(model)
    model.train()
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=1e-4))
    losses = model.train_step(detection_batch(96, 1), wrapper)
    assert all(torch.isfinite(value).all() for value in losses.values())
    distilled = {key.split(".")[-1] for key in losses if key.startswith("distill.")}
    assert distilled == cfg.model.distiller.distill_losses.keys()


def test_a_pair_says_which_methods_fit_it():
    student, teacher = read_pair(DINO, FASTER)
    text = describe_fitting(student, teacher)
    assert "\nrobust " in text and "\npkd " in text and "\nkd " not in text
    assert "not by " in text and "RoIs are not scored by the student DINO" in text


def test_a_method_that_does_not_fit_is_refused_with_those_that_do(digits):
    with pytest.raises(PairingError) as caught:
        pair(DETR, FASTER, "kd_nd", data=str(digits))
    message = str(caught.value)
    assert message.startswith(f"{FASTER} cannot teach {DETR} by the method kd_nd: ")
    assert message.endswith("take one of robust, robust_fit, review, cwd, pkd")


def test_the_list_is_that_of_one_data_set(tmp_path):
    # A training sets the classes of both sides to those of the data, whatever their configs say.
    folders = [tmp_path / name for name in ("s", "t")]
    for folder in folders:
        folder.mkdir()
    student = dense("gfl", folders[0])
    teacher = folders[1] / "t.py"
    model = dict(bbox_head=dict(num_classes=20))
    teacher.write_text(f"_base_ = {student!r}\nmodel = {model!r}\n")
    sides = read_pair(student, str(teacher))
    assert len({side.num_classes for side in sides}) == 1
    assert not any(why_not(method, find_offers(*sides)) for method in ("kd_nd", "ld"))


def test_heads_with_operations_that_the_meta_device_lacks_are_read(digits):
    ddod = "mmdet::ddod/ddod_r50_fpn_1x_coco.py"  # deformable convolutions in its head
    made = pair(ddod, "mmdet::atss/atss_r50_fpn_1x_coco.py", "kd_nd", data=str(digits))
    assert "compared by loss_kd, loss_boxes, loss_nd" in made.describe()
    assert not find_offers(made.student, made.teacher)["cross_head"]


@pytest.mark.parametrize(
    "name",
    [
        "autoassign/autoassign_r50-caffe_fpn_1x_coco",
        "centernet/centernet-update_r50-caffe_fpn_ms-1x_coco",
        "free_anchor/freeanchor_r50_fpn_1x_coco",
    ],
)
def test_students_whose_positives_nothing_tells_are_refused_when_the_pair_is_read(name):
    sides = read_pair(f"mmdet::{name}.py", f"mmdet::{name}.py")
    for need in ("class_maps", "cross_head", "dense_embedding"):
        assert "needs a head whose loss_cls gets the label" in find_offers(*sides)[need]


def test_class_centers_need_the_positives_of_the_teacher():
    autoassign = "mmdet::autoassign/autoassign_r50-caffe_fpn_1x_coco.py"
    offers = find_offers(
        *read_pair("mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py", autoassign)
    )
    assert not offers["class_maps"] and "is a AutoAssignHead" in offers["dense_embedding"]


def test_a_dense_pair_is_told_of_its_heads_alone(tmp_path, digits):
    sides = (dense("gfl", tmp_path), dense("rtmdet", tmp_path))
    with pytest.raises(PairingError) as caught:
        pair(*sides, "kd", data=str(digits))
    assert str(caught.value) == (
        f"{sides[1]} cannot teach {sides[0]} by the method kd: the grids of the heads differ: the "
        "student GFL has strides [8, 16, 32, 64, 128] and the teacher RTMDet [8, 16, 32]; take one "
        "of robust, robust_fit, review, cwd, pkd"
    )


def test_a_pair_without_a_common_stride_is_told_what_would_fit(digits):
    centernet = "mmdet::centernet/centernet_r18_8xb16-crop512-140e_coco.py"
    said = r"32 and the teacher CenterNet of 4, none in common; no method fits them; give two"
    with pytest.raises(PairingError, match=said):
        pair(DETR, centernet, data=str(digits))


def test_an_op_that_only_a_compiled_mmcv_has_is_named_with_both_sides(digits, monkeypatch):
    from kd_det.compat.mmcv.common import not_provided

    def run(*_: Any) -> None:
        raise not_provided("carafe_forward")

    monkeypatch.setattr("kd_det.pairing.detectors.run", run)
    with pytest.raises(MissingPackageError) as caught:
        pair(DETR, FASTER, data=str(digits))
    start = f"{FASTER} cannot teach {DETR}: the student {DETR} cannot run here: mmcv op 'carafe"
    assert str(caught.value).startswith(start)


def test_heads_whose_grids_differ_offer_their_pyramids(tmp_path):
    sides = (dense("gfl", tmp_path), dense("rtmdet", tmp_path))
    offers = find_offers(*read_pair(*sides))
    assert not offers["pyramid"]
    for need in ("class_maps", "cross_head", "dense_embedding"):
        assert "grids of the heads differ" in offers[need]
    assert "strides [8, 16, 32, 64, 128]" in why_not("kd", offers)


def test_crosskd_needs_strides_in_common_and_positives_of_the_student(tmp_path):
    atss, retinanet = (dense(name, tmp_path) for name in ("atss", "retinanet"))
    offers = find_offers(*read_pair(atss, retinanet))  # 1 anchor and 9
    assert "grids of the heads differ" in offers["class_maps"] and not offers["cross_head"]
    offers = find_offers(*read_pair(FASTER, retinanet))
    assert offers["cross_head"].startswith("no dense head in the student FasterRCNN")


def test_other_strides_name_both(tmp_path):
    # A backbone's last map alone, and a pyramid without it.
    c4 = write(tmp_path / "t.py", base=DETR)
    rtmdet = dense("rtmdet", tmp_path)
    student, teacher = read_pair(rtmdet, c4)
    levels = [level for level in student.levels if level.stride < 32]
    import dataclasses

    offers = find_offers(dataclasses.replace(student, levels=levels), teacher)
    assert "has maps of strides 8, 16 and the teacher DETR" in offers["pyramid"]
    assert "of 32, none in common" in offers["pyramid"]


def test_weights_that_are_named_without_a_type_are_not_downloaded_for_a_teacher():
    found = read_detector("mmdet::pvt/retinanet_pvt-t_fpn_1x_coco.py", "teacher")
    assert found.model_cfg["backbone"]["init_cfg"] is None


def test_crowddet_has_one_class():
    name = "mmdet::crowddet/crowddet-rcnn_r50_fpn_8xb2-30e_crowdhuman.py"
    assert read_detector(name, "student", 1).num_classes == 1
    with pytest.raises(TypeError, match="finds objects of one class alone, and the data has 3"):
        read_detector(name, "student", 3)


def test_detectors_of_instances_are_dense_ones_too():
    fcos, condinst = (
        find_family(read_config(f"mmdet::{name}.py")["model"], name, "student")
        for name in (
            "fcos/fcos_r50-caffe_fpn_gn-head_1x_coco",
            "condinst/condinst_r50_fpn_ms-poly-90k_coco_instance",
        )
    )
    assert fcos is condinst
