"""tools/dist_train.sh: two processes on the CPU share the pre-pass and end with one student."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from small import digits_config, edit_annotations, runner, start_two

from kd_det.centers import ClassCenters
from kd_det.hooks import ClassCenterHook
from kd_det.report.scalars import read_scalars

# Odd: in the pre-pass, one process has an image more than the other.
IMAGES, ROIS_PER_IMAGE = 7, 64
DISTILL = ("distill.loss_review", "distill.loss_nd", "distill.loss_kd")


def configuration(digits: Path, teacher_ckpt: Path, work_dir: Path) -> Config:
    cfg = digits_config("review_nd_kd", digits, work_dir)
    cfg.model.teacher_ckpt = str(teacher_ckpt)
    cfg.train_dataloader.dataset.indices = IMAGES
    cfg.train_dataloader.batch_size = 2
    cfg.train_cfg.val_interval = 99
    cfg.default_hooks.logger.interval = 1
    cfg.find_unused_parameters = False
    cfg.custom_imports = dict(imports=["rank_report"], allow_failed_imports=False)
    return cfg


def train(cfg: Config, folder: Path) -> list[dict]:
    """Train with two processes, started elsewhere than in the repository; what each reports."""
    cfg.custom_hooks.append(dict(type="RankReport"))
    cfg.dump(folder / "config.py")
    done = start_two(folder / "config.py", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads((Path(cfg.work_dir) / f"rank_{rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture(scope="module")
def work_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("distributed") / "work"


@pytest.fixture(scope="module")
def reports(digits: Path, teacher_ckpt: Path, work_dir: Path) -> list[dict]:
    """What each of two processes reports of one epoch in ``work_dir``."""
    cfg = configuration(digits, teacher_ckpt, work_dir)
    cfg.model.init_student_from_teacher = ["neck"]
    cfg.custom_hooks.append(dict(type="kd_det.NeckFitHook"))
    # Flips are random, but each image's own.
    cfg.train_dataloader.dataset.pipeline.insert(3, dict(type="RandomFlip", prob=0.5))
    return train(cfg, work_dir.parent)


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


def test_centers_are_those_of_one_process(work_dir, reports, digits, teacher_ckpt, tmp_path):
    cfg = configuration(digits, teacher_ckpt, tmp_path)
    cfg.train_dataloader.dataset.pipeline.insert(3, dict(type="RandomFlip", prob=0.5))
    cfg.pop("custom_imports")
    (alone,) = ClassCenterHook().collect(runner(cfg)).values()
    both = ClassCenters.load(work_dir / "class_centers.safetensors")
    assert torch.equal(alone.counts, both.counts)
    assert alone.metadata.items() <= both.metadata.items()  # digests do not depend on the process
    assert (alone.means - both.means).norm() <= 1e-6 * alone.means.norm()


def test_all_distillation_losses_act(work_dir, reports):
    logged = read_scalars(work_dir)
    assert all(len(logged[n]) == 2 and min(logged[n].values()) > 0 for n in DISTILL)
    # On each rank, not only on average.
    assert all(losses[name] > 0 for r in reports for losses in r["losses"] for name in DISTILL)


def test_the_first_process_exports_the_student(work_dir, reports):
    weights = torch.load(work_dir / "student" / "model.pth", weights_only=True)["state_dict"]
    saved = torch.load(work_dir / "epoch_1.pth", weights_only=True)["state_dict"]
    assert weights and all(
        torch.equal(value, saved[f"architecture.{name}"]) for name, value in weights.items()
    )
    assert not list(work_dir.glob(".student*.new-*"))


def test_processes_end_with_the_same_parameters(reports):
    assert reports[0]["digests"] == reports[1]["digests"]


def test_ranks_with_nothing_in_common_go_on_together(folder, teacher_ckpt, tmp_path):
    """Objects on one rank alone, in bfloat16 and with all that keeps a state of its own."""
    bare: set[int] = set()

    def empty_every_second(data: dict) -> None:
        bare.update(image["id"] for image in data["images"][1::2])
        data["annotations"] = [a for a in data["annotations"] if a["image_id"] not in bare]

    edit_annotations(folder, empty_every_second, "train")
    cfg = configuration(folder, teacher_ckpt, tmp_path / "work")
    cfg.train_dataloader.sampler.shuffle = False  # rank 1 has each second image
    cfg.model.speed = "auto"
    cfg.optim_wrapper.update(type="kd_det.Bfloat16OptimWrapper", accumulative_counts=2)
    cfg.custom_hooks.append(dict(type="EMAHook"))
    reports = train(cfg, tmp_path)
    assert not set(reports[1]["images"][:-1]) - bare
    assert [r["iterations"] for r in reports] == [2, 2]
    assert reports[0]["digests"] == reports[1]["digests"]
    assert len(reports[0]["forms"]) == 1 and reports[0]["forms"] == reports[1]["forms"]
    for report in reports:
        assert all(np.isfinite(list(losses.values())).all() for losses in report["losses"])
        assert all(losses[name] > 0 for losses in report["losses"] for name in DISTILL)
