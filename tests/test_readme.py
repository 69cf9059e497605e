"""The configs of README and pages build what they promise; tests/docs reads all blocks."""

from __future__ import annotations

from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import HOOKS
from small import ROOT, build
from snippets import block

RECIPE = "configs/frcnn_r101_r18_review_nd.py"


def config(tmp_path: Path, page: str, start: str) -> Config:
    text = block(ROOT / page, start)
    assert f'_base_ = "{RECIPE}"' in text
    path = tmp_path / "config.py"
    path.write_text(text.replace(RECIPE, str(ROOT / RECIPE)))
    return Config.fromfile(path)


def test_first_config_builds_for_three_classes(tmp_path: Path):
    cfg = config(tmp_path, "README.md", "# my_r18.py")
    torch.save(build(cfg.model.teacher).state_dict(), tmp_path / "teacher.pth")
    cfg.model.teacher_ckpt = str(tmp_path / "teacher.pth")
    model = build(cfg.model)
    assert model.student.roi_head.bbox_head.num_classes == 3
    assert model.distiller.distill_losses["loss_nd"].centers.shape == (4, 1024)


def test_start_schedule_and_balance_name_losses_of_the_recipe(tmp_path: Path):
    cfg = config(tmp_path, "docs/methods.md", "# my_schedule.py")
    hooks = [HOOKS.build(hook) for hook in cfg.custom_hooks[2:]]
    names = {name for hook in hooks for name in (getattr(hook, "share", None) or hook.schedules)}
    assert names == cfg.model.distiller.distill_losses.keys()


def test_own_data_reaches_every_loader(tmp_path: Path):
    cfg = config(tmp_path, "docs/your_detector.md", "# my_recipe.py")
    for part in ("train", "val", "test"):
        assert cfg[f"{part}_dataloader"].dataset.data_root == "data/fruit/"
        assert cfg[f"{part}_dataloader"].dataset.metainfo.classes == ("apple", "orange", "pear")
    assert cfg.test_evaluator.ann_file == "data/fruit/annotations/val.json"


def test_every_recipe_has_the_hooks_that_all_are_said_to_have():
    """Except for MMRazor's own configs, and detectors that distill is given."""
    configs = ROOT / "configs"
    others = {"_base_", "mixed", "students"}
    recipes = [path for path in configs.rglob("*.py") if not others & set(path.parts)]
    for path in recipes:
        if "deitb" not in path.stem:
            hooks = Config.fromfile(path).default_hooks
            assert hooks.exact_resume.type == "kd_det.ExactResumeHook", path
            assert hooks.finite_loss.type == "kd_det.FiniteLossHook", path
            assert hooks.student_export.type == "kd_det.StudentExportHook", path
            assert hooks.step_time.type == "kd_det.StepTimeHook", path
