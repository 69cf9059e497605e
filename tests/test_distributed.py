"""tools/dist_train.sh: two processes on the CPU share the pre-pass and end with one student."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from small import ROOT, digits_config

from kd_det.centers import ClassCenters

# Odd: in the pre-pass, one process has an image more than the other.
IMAGES, ROIS_PER_IMAGE = 7, 64
DISTILL = ("distill.loss_review", "distill.loss_nd", "distill.loss_kd")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def work_dir(digits: Path, teacher_ckpt: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Work directory of one epoch with two processes."""
    folder = tmp_path_factory.mktemp("distributed")
    cfg = digits_config("review_nd_kd", digits, folder / "work")
    cfg.model.teacher_ckpt = str(teacher_ckpt)
    cfg.train_dataloader.dataset.indices = IMAGES
    cfg.train_dataloader.batch_size = 2
    cfg.train_cfg.val_interval = 99
    cfg.default_hooks.logger.interval = 1
    cfg.find_unused_parameters = False
    cfg.custom_imports = dict(imports=["rank_report"], allow_failed_imports=False)
    cfg.custom_hooks.append(dict(type="RankReport"))
    cfg.dump(folder / "config.py")
    # Started elsewhere than in the repository.
    done = subprocess.run(
        ["bash", str(ROOT / "tools" / "dist_train.sh"), str(folder / "config.py"), "2"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env={
            **os.environ,
            "PYTHON": sys.executable,
            "PORT": str(free_port()),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
        },
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "work"


@pytest.fixture(scope="module")
def reports(work_dir: Path) -> list[dict]:
    return [json.loads((work_dir / f"rank_{rank}.json").read_text()) for rank in (0, 1)]


def test_both_processes_train_on_their_own_images(reports):
    assert [r["world_size"] for r in reports] == [2, 2]
    assert [r["iterations"] for r in reports] == [2, 2]
    assert not any(r["finds_unused"] for r in reports)
    first, second = (set(r["images"]) for r in reports)
    assert len(first | second) == IMAGES
    # The sampler repeats one image to give both the same number.
    assert len(first & second) == 1


def test_prepass_counts_each_image_once(work_dir, reports):
    centers = ClassCenters.load(work_dir / "class_centers.safetensors")
    assert int(centers.counts.sum()) == IMAGES * ROIS_PER_IMAGE
    assert all(r["counts"] == centers.counts.tolist() for r in reports)
    assert reports[0]["centers"] == reports[1]["centers"]


def test_all_distillation_losses_act(work_dir):
    (log,) = work_dir.glob("*/vis_data/scalars.json")
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    entries = [entry for entry in entries if "loss" in entry]
    assert len(entries) == 2
    assert all(entry[name] > 0 for entry in entries for name in DISTILL)


def test_processes_end_with_the_same_parameters(reports):
    assert reports[0]["digests"] == reports[1]["digests"]
