"""Helpers to run the command lines on small settings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from small import IMAGE_SIZE, ROIS_PER_IMAGE, ROOT

TOOLS = ROOT / "tools"
RECIPE = ROOT / "configs" / "digits" / "review_nd_kd.py"


def run_process(command: str, *arguments: object) -> subprocess.CompletedProcess:
    """``kd-det <command>`` in a process of its own."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, "-m", "kd_det", command, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        encoding="utf-8",
        timeout=240,
        check=False,
    )


def small_options(digits: Path, teacher_ckpt: Path) -> list[str]:
    """What makes ``RECIPE`` small: two iterations of four images."""
    scale = f"({IMAGE_SIZE},{IMAGE_SIZE})"
    options = [
        f"model.teacher_ckpt={teacher_ckpt}",
        "train_dataloader.dataset.indices=8",
        "train_cfg.max_epochs=1",
        "default_hooks.logger.interval=1",
        f"val_evaluator.ann_file={digits}/annotations/instances_val.json",
        f"test_evaluator.ann_file={digits}/annotations/instances_val.json",
    ]
    for side in ("architecture", "teacher"):
        options.append(f"model.{side}.train_cfg.rcnn.sampler.num={ROIS_PER_IMAGE}")
    for part in ("train", "val", "test"):
        options += [
            f"{part}_dataloader.batch_size=4",
            f"{part}_dataloader.num_workers=0",
            f"{part}_dataloader.persistent_workers=False",
            f"{part}_dataloader.dataset.data_root={digits}",
            f"{part}_dataloader.dataset.pipeline.2.scale={scale}",
        ]
    return options
