"""What is read from a detector's config, without its weights."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import ConfigDict
from small import build
from zoo import C4, CASCADE, FASTER, STUDENTS, student, write

from kd_det.pairing.detectors import PairingError, read_detector, short_name, start_weights

pytestmark = pytest.mark.usefixtures("offline")

DETECTORS = "mmdet::detectors/detectors_cascade-rcnn_r50_1x_coco.py"
SWIN = "mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py"


@pytest.mark.parametrize(
    ("name", "levels", "embeddings", "pyramid"),
    [
        (FASTER, [(256, 4), (256, 8), (256, 16), (256, 32), (256, 64)], [1024], "neck"),
        (CASCADE, [(256, 4), (256, 8), (256, 16), (256, 32), (256, 64)], [1024] * 3, "neck"),
        (C4, [(1024, 16)], [2048], "backbone"),
        ("narrow", [(128, 4), (128, 8), (128, 16), (128, 32)], [256], "neck"),
        # These have to be built with values.
        (DETECTORS, [(256, 4), (256, 8), (256, 16), (256, 32), (256, 64)], [1024] * 3, "neck"),
        (SWIN, [(256, 4), (256, 8), (256, 16), (256, 32), (256, 64)], [1024], "neck"),
    ],
)
def test_shapes_are_read(tmp_path, name, levels, embeddings, pyramid):
    found = read_detector(student(name, tmp_path), "student")
    assert [(level.channels, level.stride) for level in found.levels] == levels
    assert [level.index for level in found.levels] == list(range(len(levels)))
    assert found.embeddings == embeddings and found.pyramid == pyramid
    assert len(found.box_heads) == len(embeddings)
    for name in (pyramid, *found.box_heads):
        found.model.get_submodule(name)


def test_shapes_are_those_of_the_real_detector(tmp_path):
    found = read_detector(student("narrow", tmp_path), "student")
    real = build(ConfigDict(found.model_cfg)).eval()
    with torch.no_grad():
        maps = real.extract_feat(torch.zeros(1, 3, 64, 64))
    assert [(x.shape[1], 64 // x.shape[2]) for x in maps] == [
        (level.channels, level.stride) for level in found.levels
    ]
    assert real.roi_head.bbox_head.fc_cls.in_features == found.embeddings[0]


def test_classes_are_set_in_all_heads_but_that_of_the_scene():
    found = read_detector("mmdet::htc/htc_r50_fpn_1x_coco.py", "teacher", 3)
    roi_head = found.model_cfg["roi_head"]
    assert [head["num_classes"] for head in roi_head["bbox_head"]] == [3] * 3
    assert [head["num_classes"] for head in roi_head["mask_head"]] == [3] * 3
    assert roi_head["semantic_head"]["num_classes"] == 183
    assert found.own_classes == 80
    assert found.model.roi_head.bbox_head[2].num_classes == 3


def test_only_the_student_keeps_what_would_be_downloaded():
    teacher = read_detector(FASTER, "teacher")
    assert teacher.model_cfg["backbone"]["init_cfg"] is None
    assert start_weights(teacher.model_cfg) == "random"
    assert start_weights(read_detector(FASTER, "student").model_cfg) == "torchvision://resnet50"


def test_the_student_starts_where_its_config_loads_from(tmp_path):
    path = write(tmp_path / "s.py", **STUDENTS["narrow"])
    with open(path, "a") as file:
        file.write('load_from = "https://host/r18.pth"\n')
    found = read_detector(path, "student")
    assert found.model_cfg["init_cfg"] == dict(type="Pretrained", checkpoint="https://host/r18.pth")
    assert start_weights(found.model_cfg) == "https://host/r18.pth"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            "mmdet::retinanet/retinanet_r50_fpn_1x_coco.py",
            "the teacher is a RetinaNet, which is no TwoStageDetector",
        ),
        ("mmdet::sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py", "scores learned queries"),
        ("mmdet::tridentnet/tridentnet_r50-caffe_1x_coco.py", "three outputs for each image"),
        ("mmdet::rpn/rpn_r50_fpn_1x_coco.py", "the teacher is a RPN, which is no TwoStageDetector"),
    ],
)
def test_other_detectors_are_refused(name, reason):
    with pytest.raises(TypeError, match=reason):
        read_detector(name, "teacher")


def test_what_is_no_detector_is_told(tmp_path):
    (tmp_path / "data.py").write_text("train_dataloader = dict()\n")
    with pytest.raises(PairingError, match=r"as student, found no model with a backbone in .*data"):
        read_detector(str(tmp_path / "data.py"), "student")
    path = write(tmp_path / "new.py", type="NewRCNN")
    with pytest.raises(PairingError, match=r"new\.py has a model of type 'NewRCNN', which is not"):
        read_detector(path, "student")
    with pytest.raises(FileNotFoundError, match=r"the config file does not exist: no\.py"):
        read_detector("no.py", "student")


def test_short_names():
    assert short_name(FASTER) == "faster-rcnn_r50_fpn_1x_coco"
    assert short_name("configs/mine.py") == "mine"
