"""The recipes of YOLOX and RTMDet, mosaics and all, are the student's own under a teacher too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from small import build, runner, start_two
from small_dense import CONFIGS, config
from torch import nn

from kd_det.pairing.compose import Pairing, pair

pytestmark = pytest.mark.usefixtures("offline")

RESIZING = dict(
    type="BatchSyncRandomResize", random_size_range=(96, 96), size_divisor=32, interval=1
)
SIZES = ("img_scale", "scale", "size", "crop_size", "border")


def shrunk(part: Any, key: str = "") -> Any:
    """A part of a config with a tenth of all sizes of images."""
    if isinstance(part, dict):
        return {name: shrunk(each, name) for name, each in part.items()}
    if isinstance(part, (list, tuple)):
        return type(part)(shrunk(each, key) for each in part)
    return round(part / 10) if key in SIZES and abs(part) >= 100 else part


def make(name: str, digits: Path, folder: Path, epochs: int, **more: Any) -> Pairing:
    """Two shrunk detectors of mmdet, with the student's own recipe."""
    model = config(name).to_dict()
    model["data_preprocessor"].update(more)
    for each in ("s", "t"):
        (folder / f"{each}.py").write_text(
            f"_base_ = 'mmdet::{CONFIGS[name]}'\nmodel = {dict(model, _delete_=True)!r}\n"
        )
    torch.save(build(config(name)).state_dict(), folder / "t.pth")
    return pair(
        str(folder / "s.py"),
        str(folder / "t.py"),
        "robust",
        teacher_ckpt=str(folder / "t.pth"),
        data=str(digits),
        work_dir=str(folder / "work"),
        epochs=epochs,
        batch_size=8,
        cfg_options={"default_hooks.teacher_accuracy": None, "default_hooks.logger.interval": 1},
    )


def start(made: Pairing) -> Runner:
    """A Runner for images of 64 pixels, three steps an epoch."""
    return runner(small(made))


def small(made: Pairing) -> Config:
    """A pair's config for images of 64 pixels."""
    cfg = made.cfg.copy()
    object.__setattr__(cfg, "_format_python_code", False)
    for part in ("train", "val", "test"):
        loader = cfg[f"{part}_dataloader"]
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset = shrunk(loader.dataset.to_dict())
    cfg.custom_hooks = [shrunk(hook.to_dict()) for hook in cfg.custom_hooks]
    return cfg


def averaged(work_dir: Path) -> set[str]:
    saved = torch.load(work_dir / "epoch_2.pth", weights_only=True)
    return {key.removeprefix("module.architecture.") for key in saved["ema_state_dict"]}


def test_yolox_keeps_mosaics_sizes_hooks_and_average(digits, tmp_path):
    made = make("yolox", digits, tmp_path, epochs=2, batch_augments=[RESIZING])
    own, found = made.student.cfg, made.cfg.to_dict()
    loader = found["train_dataloader"]["dataset"]
    assert loader["type"] == "MultiImageMixDataset"
    assert loader["pipeline"] == own["train_dataloader"]["dataset"]["pipeline"]
    kept = "YOLOXModeSwitchHook, SyncNormHook, EMAHook"
    assert f"hooks of the student's config are kept: {kept}" in made.decisions
    assert "YOLOXModeSwitchHook: num_last_epochs 15 becomes 1" in made.decisions
    assert any(each.startswith("BatchSyncRandomResize") for each in made.decisions)
    phases = [each["type"].rpartition(".")[2] for each in found["param_scheduler"]]
    assert phases == ["QuadraticWarmupLR", "CosineAnnealingLR", "ConstantLR"]

    run = start(made)
    student, teacher = run.model.student, run.model.teacher
    sides: dict[str, list[int]] = dict(student=[], teacher=[])
    for name, model in (("student", student), ("teacher", teacher)):
        model.backbone.register_forward_pre_hook(
            lambda module, inputs, to=sides[name]: to.append(inputs[0].shape[-1])
        )
    run.train()
    # The first batch has the images' size, the others what is drawn, on both sides.
    assert sides["teacher"][:6] == [64, *[96] * 5] == sides["student"][:6]
    assert run.train_dataloader.dataset._skip_type_keys == ("Mosaic", "RandomAffine", "MixUp")
    assert student.bbox_head.use_l1 and not teacher.bbox_head.use_l1
    assert student.state_dict().keys() <= averaged(tmp_path / "work")


def test_yolox_syncs_its_norms_on_two_ranks(digits, tmp_path):
    cfg = small(make("yolox", digits, tmp_path, epochs=1))
    cfg.train_dataloader.batch_size = 4
    cfg.custom_hooks.append(dict(type="NormReport"))
    cfg.custom_imports = dict(imports=["norm_report"], allow_failed_imports=False)
    cfg.dump(tmp_path / "two.py")
    done = start_two(tmp_path / "two.py", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    before, after = (
        [torch.load(tmp_path / "work" / f"norms_{stage}_{rank}.pt") for rank in (0, 1)]
        for stage in ("before", "after")
    )
    for name, value in after[0].items():
        assert torch.equal(value, after[1][name])
        torch.testing.assert_close(value, (before[0][name] + before[1][name]) / 2)
    differ = {name for name in after[0] if not torch.equal(before[0][name], before[1][name])}
    assert differ and all(name.startswith("student.") for name in differ)


def test_rtmdet_keeps_cached_mosaics_its_second_pipeline_and_average(digits, tmp_path):
    made = make("rtmdet", digits, tmp_path, epochs=2)
    own, found = made.student.cfg, made.cfg.to_dict()
    pipeline = found["train_dataloader"]["dataset"]["pipeline"]
    assert pipeline == own["train_dataloader"]["dataset"]["pipeline"]
    assert "hooks of the student's config are kept: EMAHook, PipelineSwitchHook" in made.decisions
    assert "PipelineSwitchHook: switch_epoch 280 becomes 1" in made.decisions
    assert any(each.startswith("CachedMosaic, CachedMixUp mix images") for each in made.decisions)

    run = start(made)
    mosaics: list[bool] = []

    def look(module: nn.Module, _: Any) -> None:
        if module.training:
            pipeline = run.train_dataloader.dataset.pipeline.transforms
            mosaics.append("CachedMosaic" in [type(each).__name__ for each in pipeline])

    run.model.student.backbone.register_forward_pre_hook(look)
    run.train()
    assert mosaics == [True] * 3 + [False] * 3
    assert run.model.student.state_dict().keys() <= averaged(tmp_path / "work")
