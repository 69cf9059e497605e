"""What is read from a detector's config, without its weights."""

from __future__ import annotations

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from small import build
from zoo import C4, CASCADE, FASTER, STUDENTS, student, write

from kd_det.errors import InvalidInputError, MissingPackageError
from kd_det.pairing import PairingError
from kd_det.pairing.detectors import read_detector
from kd_det.pairing.start_weights import describe_start
from kd_det.pairing.text import read_config

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
    assert describe_start(teacher.model_cfg) == "random"
    assert describe_start(read_detector(FASTER, "student").model_cfg) == "torchvision://resnet50"


def loading(tmp_path, load_from: str) -> str:
    """The config of a student that loads weights."""
    path = write(tmp_path / "s.py", **STUDENTS["narrow"])
    with open(path, "a") as file:
        file.write(f"load_from = {load_from!r}\n")
    return path


def test_the_student_starts_where_its_config_loads_from(tmp_path):
    found = read_detector(loading(tmp_path, "https://host/r18.pth"), "student")
    assert found.model_cfg["init_cfg"] == dict(type="Pretrained", checkpoint="https://host/r18.pth")
    assert describe_start(found.model_cfg) == "https://host/r18.pth"
    assert "read when training begins" in found.start


def test_weights_are_really_loaded(tmp_path):
    plain = read_detector(write(tmp_path / "p.py", **STUDENTS["narrow"]), "student")
    real = build(ConfigDict(plain.model_cfg))
    state = {key: torch.full_like(each, 0.5) for key, each in real.state_dict().items()}
    averaged = {f"module.{key}": each for key, each in state.items()}
    torch.save(dict(ema_state_dict=averaged), tmp_path / "start.pth")
    found = read_detector(loading(tmp_path, str(tmp_path / "start.pth")), "student")
    assert describe_start(found.model_cfg) == str(tmp_path / "start.pth")
    assert f"{len(state)} of its {len(state)} tensors" in found.start
    started = build(ConfigDict(found.model_cfg))
    started.init_weights()
    assert all((each == each.new_tensor(0.5)).all() for each in started.state_dict().values())


def test_weights_of_which_nothing_fits_are_refused(tmp_path):
    torch.save(dict(model={"layer.w": torch.ones(1)}), tmp_path / "start.pth")
    path = loading(tmp_path, str(tmp_path / "start.pth"))
    with pytest.raises(PairingError, match=r"none of the 1 weights in .*found layer\.w"):
        read_detector(path, "student")
    with pytest.raises(FileNotFoundError, match=r"no\.pth does not exist"):
        read_detector(loading(tmp_path, "no.pth"), "student")


def test_a_preprocessor_at_the_top_of_a_config_is_the_models(tmp_path):
    path = write(tmp_path / "s.py", data_preprocessor=None, **STUDENTS["narrow"])
    cfg = read_config(path)
    del cfg["model"]["data_preprocessor"]
    cfg["data_preprocessor"] = dict(type="DetDataPreprocessor", mean=[1], std=[2])
    for who in ("student", "teacher"):
        found = read_detector(path, who, cfg=cfg)
        assert found.model_cfg["data_preprocessor"] == cfg["data_preprocessor"]
        assert found.model.data_preprocessor.mean.shape == (1, 1, 1)


def test_types_that_are_paths_are_known(tmp_path):
    """As which configs in the new style, with classes as types, are read."""
    init = dict(type="mmengine.model.weight_init.PretrainedInit", checkpoint="torchvision://r18")
    path = write(
        tmp_path / "s.py",
        type="mmdet.models.detectors.FasterRCNN",
        **dict(STUDENTS["narrow"], backbone=dict(depth=18, init_cfg=init)),
    )
    found = read_detector(path, "student")
    assert describe_start(found.model_cfg) == "torchvision://r18"
    assert found.model_cfg["backbone"]["init_cfg"]["type"] == "Pretrained"
    teacher = read_detector(path, "teacher")
    assert teacher.model_cfg["backbone"]["init_cfg"] is None


@pytest.mark.parametrize(
    ("name", "error", "reason"),
    [
        ("tridentnet/tridentnet_r50-caffe_1x_coco", TypeError, "three maps for each image"),
        (
            "soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco",
            PairingError,
            r"the teacher .* is a SoftTeacher, .*model\.detector",
        ),
        (
            "_base_/datasets/coco_detection",
            PairingError,
            "as teacher, found no model with a backbone in .*coco_detection",
        ),
        # mmdet does not build it either.
        (
            "cascade_rpn/cascade-rpn_r50-caffe_fpn_1x_coco",
            PairingError,
            "cannot be built: .*missing 1 required positional argument: 'num_classes'",
        ),
        # The same behind a backbone that is built with values.
        (
            "v3det/fcos_swinb_fpn_8x4_sample1e-3_mstrain_v3det_2x",
            PairingError,
            "cannot be built: .*unexpected keyword argument 'force_grad_on_level'",
        ),
        # mmdet's package does not have the file that this one derives from.
        (
            "bytetrack/bytetrack_yolox_x_8xb4-amp-80e_crowdhuman-mot17halftrain_test-mot17test",
            InvalidInputError,
            "mot17test.py derives from a config that does not exist: .*halfval.py",
        ),
    ],
)
def test_other_configs_are_refused(name, error, reason):
    with pytest.raises(error, match=reason):
        read_detector(f"mmdet::{name}.py", "teacher")


def test_a_package_that_is_not_installed_is_named_in_one_line(monkeypatch):
    # As mmdet's module is where scikit-image is not installed.
    monkeypatch.setattr("mmdet.models.data_preprocessors.data_preprocessor.skimage", None)
    said = "boxinst_r50.* needs a package .*: skimage is not installed, please install it by: pip"
    with pytest.raises(MissingPackageError, match=said):
        read_detector("mmdet::boxinst/boxinst_r50_fpn_ms-90k_coco.py", "teacher")


def test_what_is_not_registered_or_not_there_is_told(tmp_path):
    path = write(tmp_path / "new.py", type="NewRCNN")
    with pytest.raises(PairingError, match=r"new\.py has a model of type 'NewRCNN', which is not"):
        read_detector(path, "student")
    with pytest.raises(FileNotFoundError, match=r"the config file does not exist: no\.py"):
        read_detector("no.py", "student")


def test_nothing_is_downloaded_when_a_backbone_is_built():
    """As timm's would be, whose option is a bool."""

    @MODELS.register_module(force=True)
    class BackboneThatDownloads(MODELS.get("ResNet")):
        def __init__(self, pretrained: bool) -> None:
            assert not pretrained
            super().__init__(50)

    try:
        cfg = read_config(FASTER)
        cfg["model"]["backbone"] = dict(type="BackboneThatDownloads", pretrained=True)
        assert read_detector(FASTER, "student", cfg=cfg).model_cfg["backbone"]["pretrained"]
    finally:
        MODELS.module_dict.pop("BackboneThatDownloads")


def test_a_norm_that_needs_several_processes_is_that_of_pytorch():
    name = (
        "mmdet::strong_baselines/mask-rcnn_r50_fpn_rpn-2conv_4conv1fc_syncbn-all_lsj-100e_coco.py"
    )
    assert "MMSyncBN" in str(read_config(name)["model"])
    found = read_detector(name, "student")
    assert "MMSyncBN" not in str(found.model_cfg)
    norms = [m for m in found.model.roi_head.modules() if isinstance(m, torch.nn.SyncBatchNorm)]
    assert norms
