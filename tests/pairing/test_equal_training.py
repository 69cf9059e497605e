"""The two trainings that are written, run: with a teacher that weighs nothing they are one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from small import IMAGE_SIZE, ROOT, build, runner

from kd_det.pairing.compose import pair

PLAIN, TEACHER = (str(ROOT / "configs" / "digits" / f"{name}.py") for name in ("plain", "teacher"))


@pytest.fixture(scope="module")
def runs(digits, teacher_ckpt, tmp_path_factory) -> dict[str, Path]:
    """Work directories of a distilled student whose losses weigh 0, and of the student alone."""
    folder = tmp_path_factory.mktemp("runs")
    torch.manual_seed(1)
    torch.save(build(Config.fromfile(PLAIN).model).state_dict(), folder / "start.pth")
    (folder / "student.py").write_text(
        f"_base_ = {PLAIN!r}\n"
        f"load_from = {str(folder / 'start.pth')!r}\n"
        "custom_hooks = [dict(type='EMAHook', momentum=0.3)]\n"
        "optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'neck': dict(lr_mult=0.1)}))\n"
    )
    options = {
        f"{part}_dataloader.{key}": value
        for part in ("train", "val", "test")
        for key, value in {
            "num_workers": 0,
            "persistent_workers": False,
            "dataset.pipeline.2.scale": (IMAGE_SIZE, IMAGE_SIZE),
        }.items()
    }
    made = pair(
        str(folder / "student.py"),
        TEACHER,
        "kd",
        teacher_ckpt=str(teacher_ckpt),
        data=str(digits),
        work_dir=str(folder / "distilled"),
        epochs=1,
        batch_size=4,
        cfg_options={
            **options,
            "train_dataloader.dataset.indices": 12,
            "model.distiller.distill_losses.loss_kd.loss_weight": 0.0,
        },
    )
    made.write(folder / "config" / "distill.py")
    for name in ("distill", "alone"):
        cfg = Config.fromfile(folder / "config" / f"{name}.py")
        object.__setattr__(cfg, "_format_python_code", False)
        runner(cfg).train()
    return dict(distilled=folder / "distilled", alone=folder / "distilled_alone")


def load(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def test_with_a_teacher_of_no_weight_they_are_equal_bit_for_bit(runs):
    distilled, alone = (load(runs[name] / "epoch_1.pth") for name in ("distilled", "alone"))
    ours = {key.removeprefix("architecture."): x for key, x in distilled["state_dict"].items()}
    assert ours.keys() == alone["state_dict"].keys()
    assert all(ours[key].equal(value) for key, value in alone["state_dict"].items())


def test_averaged_weights_are_exported_and_no_teacher_is_kept(runs):
    saved = load(runs["distilled"] / "epoch_1.pth")
    for part in ("state_dict", "ema_state_dict"):
        assert not [key for key in saved[part] if "teacher" in key]
    exported = load(runs["distilled"] / "student" / "model.pth")["state_dict"]
    name = "roi_head.bbox_head.fc_cls.weight"
    assert exported[name].equal(saved["state_dict"][f"architecture.{name}"])
    # Where the hook keeps what is trained on.
    assert not exported[name].equal(saved["ema_state_dict"][f"module.architecture.{name}"])
