"""The COCO recipe as it is, on a handful of small images in COCO's form.

Overridden are data root, image size, number of iterations, workers and checkpoints; nothing else.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from small import ROOT, build, runner
from small_coco import coco_names, write_split

from kd_det.centers import ClassCenters
from kd_det.report.scalars import read_scalars

TRAIN_IMAGES, VAL_IMAGES = 7, 3
CLASS_BIAS = "roi_head.bbox_head.fc_cls.bias"


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("coco")
    write_split(root, "train2017", TRAIN_IMAGES)
    write_split(root, "val2017", VAL_IMAGES)
    return root


def small_recipe(coco: Path, folder: Path) -> Config:
    cfg = Config.fromfile(ROOT / "configs" / "frcnn_r101_r18_review_nd.py")
    object.__setattr__(cfg, "_format_python_code", False)  # for seconds
    torch.manual_seed(0)
    weights = build(cfg.model.teacher).state_dict()
    # As they are initialised, all 81 classes score below the threshold of 0.05, and there would
    # be nothing to evaluate.
    weights[CLASS_BIAS][:10] += 4
    torch.save(weights, folder / "teacher.pth")
    cfg.model.teacher_ckpt = str(folder / "teacher.pth")
    start = {f"architecture.{CLASS_BIAS}": weights[CLASS_BIAS]}
    torch.save({"state_dict": start}, folder / "start.pth")
    cfg.load_from = str(folder / "start.pth")
    cfg.model.architecture.backbone.init_cfg = None
    for part in ("train", "val", "test"):
        loader = cfg[f"{part}_dataloader"]
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.data_root = str(coco)
        for transform in loader.dataset.pipeline:
            if transform["type"] in ("Resize", "RandomResize"):
                transform["scale"] = shrunk(transform["scale"])
    for part in ("val", "test"):
        cfg[f"{part}_evaluator"].ann_file = str(coco / "annotations" / "instances_val2017.json")
    cfg.train_cfg.max_epochs = 1
    cfg.default_hooks.logger.interval = 1
    cfg.default_hooks.teacher_accuracy.floor = None  # the teacher is random
    cfg.work_dir = str(folder / "work")
    return cfg


def shrunk(scale: Any) -> Any:
    """An eighth of all numbers."""
    if isinstance(scale, (list, tuple)):
        return type(scale)(shrunk(s) for s in scale)
    return scale // 8


@pytest.fixture(scope="module")
def trained(coco: Path, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    run = runner(small_recipe(coco, tmp_path_factory.mktemp("recipe")))
    run.train()
    return run


def test_prepass_sees_all_images_with_objects(trained):
    centers = ClassCenters.load(Path(trained.work_dir) / "class_centers.safetensors")
    assert json.loads(centers.metadata["class_names"]) == [*coco_names(), "background"]
    # The recipe filters images without objects; 512 RoIs is what the head samples at most.
    used = TRAIN_IMAGES - 1
    assert centers.metadata["dataset"] == f"CocoDataset, {used} of {used} images"
    assert used * 128 < int(centers.counts.sum()) <= used * 512
    assert centers.counts[80] > 0
    loss = trained.model.distiller.distill_losses["loss_nd"]
    assert torch.equal(loss.centers, centers.means)
    assert loss.centers.shape == (81, 1024)


def test_trains_with_all_its_losses(trained):
    assert trained.iter == 3
    # 0.01 for 8 images; two images on one process.
    assert trained.optim_wrapper.param_groups[0]["initial_lr"] == pytest.approx(0.01 * 2 / 8)
    logged = read_scalars(Path(trained.work_dir))
    for name in ("distill.loss_review", "distill.loss_nd"):
        assert len(logged[name]) == 3 and all(0 < value < 1e3 for value in logged[name].values())
    for name in ("student.loss_cls", "student.loss_rpn_bbox"):
        assert len(logged[name]) == 3 and all(0 <= value < 1e3 for value in logged[name].values())


def test_student_and_teacher_are_evaluated(trained):
    (value,) = read_scalars(Path(trained.work_dir))["coco/bbox_mAP"].values()
    assert 0 <= value <= 1
    teacher = json.loads((Path(trained.work_dir) / "teacher_metrics.json").read_text())
    assert 0 <= teacher["metrics"]["coco/bbox_mAP"] <= 1
