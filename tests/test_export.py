"""An exported student needs nothing of kd_det, and is the student that the run evaluated."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from safetensors import safe_open
from safetensors.torch import load_file
from small import ROOT, digits_config, runner
from small_cls import CLS, build_classifier

EMA = dict(type="EMAHook", momentum=0.2, priority="ABOVE_NORMAL")


@pytest.fixture(scope="module")
def detection(digits: Path, teacher_ckpt: Path, tmp_path_factory: Any) -> tuple[Path, Config]:
    """Work directory and config of a distillation with averaged weights."""
    work_dir = tmp_path_factory.mktemp("export") / "run"
    cfg = digits_config("review_nd_kd", digits, work_dir)
    cfg.model.teacher_ckpt = str(teacher_ckpt)
    cfg.train_cfg.max_epochs = 2
    for part in ("val", "test"):
        cfg[f"{part}_dataloader"].batch_size = 1  # as an inferencer's; others round differently
    cfg.default_hooks.checkpoint.save_best = "data_time"
    cfg.custom_hooks.append(EMA)
    cfg.default_hooks.checkpoint.save_best = "coco/bbox_mAP"
    runner(cfg).train()
    return work_dir, cfg


@pytest.fixture(scope="module")
def classification(tmp_path_factory: Any) -> tuple[Path, Config]:
    """Work directory and config of one whose data and models are MMPretrain's."""
    root = tmp_path_factory.mktemp("export_cls")
    numbers = np.random.RandomState(0)
    for name in ("dark", "light"):
        (root / "data" / name).mkdir(parents=True)
        for i in range(4):
            image = numbers.randint(0, 128, (16, 16, 3)) + (128 if name == "light" else 0)
            cv2.imwrite(str(root / "data" / name / f"{i}.png"), image)
    cfg = Config.fromfile(CLS / "digits" / "kd.py")
    object.__setattr__(cfg, "_format_python_code", False)
    for part in ("train", "val", "test"):
        pipeline = [dict(type="LoadImageFromFile"), dict(type="PackInputs")]
        cfg[f"{part}_dataloader"].dataset = dict(
            type="CustomDataset", data_root=str(root / "data"), pipeline=pipeline
        )
        cfg[f"{part}_dataloader"].batch_size = 1 if part == "test" else 4
    for side, channels in (("architecture", 4), ("teacher", 8)):
        cfg.model[side].backbone = dict(
            type="ResNet_CIFAR", depth=18, stem_channels=channels, base_channels=channels
        )
        cfg.model[side].head.update(num_classes=2, in_channels=8 * channels)
    torch.save(build_classifier(cfg.model.teacher).state_dict(), root / "teacher.pth")
    cfg.model.teacher_ckpt = str(root / "teacher.pth")
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    cfg.work_dir = str(root / "run")
    runner(cfg).train()
    return root / "run", cfg


def standalone(kind: str, folder: Path, images: list[Path]) -> dict[str, Any]:
    """What a process without kd_det and mmrazor finds with an export."""
    script = Path(__file__).with_name("standalone_report.py")
    done = subprocess.run(
        [sys.executable, str(script), kind, str(folder), *map(str, images)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def own(cfg: Config, checkpoint: Path, **options: object) -> tuple[dict[str, float], list]:
    """Metrics and samples of the algorithm's own evaluation, teacher and all."""
    cfg = cfg.copy()
    cfg.merge_from_dict(dict(options, load_from=str(checkpoint)))
    cfg.custom_hooks = []
    run = runner(cfg)
    samples: list = []
    loop = run.build_test_loop(run._test_loop)
    run._test_loop = loop
    process = loop.evaluator.process
    loop.evaluator.process = lambda data_samples, data_batch=None: (
        samples.extend(data_samples),
        process(data_samples=data_samples, data_batch=data_batch),
    )
    return run.test(), samples


def test_a_detector_alone_finds_what_the_run_finds(detection, digits):
    work_dir, cfg = detection
    images = sorted((digits / "val").glob("*.jpg"))
    alone = standalone("det", work_dir / "student", images)
    metrics, samples = own(cfg, work_dir / "epoch_2.pth")
    assert alone["metrics"] == metrics
    expected = {Path(sample.img_path).name: sample.pred_instances for sample in samples}
    assert sum(map(len, expected.values())) > 10
    for image, found in zip(images, alone["found"], strict=True):
        theirs = expected[image.name]
        assert found["bboxes"] == theirs.bboxes.tolist()
        assert found["scores"] == theirs.scores.tolist()
        assert found["labels"] == theirs.labels.tolist()


def test_a_classifier_alone_finds_what_the_run_finds(classification):
    work_dir, cfg = classification
    images = sorted((work_dir.parent / "data").rglob("*.png"))
    alone = standalone("cls", work_dir / "student", images)
    metrics, samples = own(cfg, work_dir / "epoch_1.pth")
    assert alone["metrics"] == metrics
    assert [each["pred_scores"] for each in alone["found"]] == [
        sample.pred_score.tolist() for sample in samples
    ]
    assert {each["pred_class"] for each in alone["found"]} <= {"dark", "light"}
