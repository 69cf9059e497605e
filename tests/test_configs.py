"""Every config in the repository builds, without touching the network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from small import ROOT, build

CONFIGS = ROOT / "configs"
RECIPES = sorted(p for p in CONFIGS.rglob("*.py") if "_base_" not in p.parts)
BASES = sorted(CONFIGS.glob("_base_/**/*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(CONFIGS))


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No download, by whatever way."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a config must be built without the network")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)


def with_random_teacher(cfg: Config, folder: Path) -> Config:
    """The recipe with a file of random weights for its teacher, if it has one."""
    if "teacher" in cfg.model:
        teacher = build(cfg.model.teacher)
        cfg.model.teacher_ckpt = str(folder / "teacher.pth")
        torch.save(teacher.state_dict(), cfg.model.teacher_ckpt)
    return cfg


@pytest.mark.parametrize("path", BASES, ids=name_of)
def test_base_parses(path):
    assert len(Config.fromfile(path)) > 0


@pytest.mark.parametrize("path", RECIPES, ids=name_of)
def test_recipe_builds(path, tmp_path):
    cfg = with_random_teacher(Config.fromfile(path), tmp_path)
    model = build(cfg.model)
    assert any(p.requires_grad for p in model.parameters())
    if "teacher" not in cfg.model:
        return
    assert not any(p.requires_grad for p in model.teacher.parameters())
    losses = model.distiller.distill_losses
    assert len(losses) > 0
    assert losses.keys() == model.distiller.loss_forward_mappings.keys()
    # A loss counts only if its name says that it is one (BaseModel.parse_losses).
    assert all("loss" in name for name in losses)
    asks_for_centers = any(hasattr(loss, "set_centers") for loss in losses.values())
    hooks = [hook.type for hook in cfg.get("custom_hooks", [])]
    assert ("kd_det.ClassCenterHook" in hooks) == asks_for_centers


@pytest.mark.parametrize("path", RECIPES, ids=name_of)
def test_recipe_can_train_and_evaluate(path):
    cfg = Config.fromfile(path)
    for key in (
        *("train_dataloader", "train_cfg", "optim_wrapper"),
        *("val_dataloader", "val_cfg", "val_evaluator"),
        *("test_dataloader", "test_cfg", "test_evaluator"),
    ):
        assert cfg.get(key), key
    assert cfg.val_evaluator.metric == "bbox"
    assert cfg.default_scope == "mmdet"


def test_students_of_the_demo_are_the_same():
    """A gain must come from the teacher, not from another student or another budget."""
    plain = Config.fromfile(CONFIGS / "digits" / "plain.py")
    for path in RECIPES:
        cfg = Config.fromfile(path)
        if path.parent.name == "digits" and "teacher" in cfg.model:
            assert cfg.model.architecture == plain.model
            for key in ("train_dataloader", "param_scheduler", "train_cfg"):
                assert cfg[key] == plain[key], key
            # What applies to connectors alone may differ.
            for key in ("type", "optimizer", "clip_grad"):
                assert cfg.optim_wrapper[key] == plain.optim_wrapper[key], key


def test_weights_of_the_coco_recipe_are_the_published_ones():
    losses = Config.fromfile(CONFIGS / "frcnn_r101_r18_review_nd.py").model.distiller.distill_losses
    assert losses.loss_review.loss_weight == 1.2
    assert losses.loss_nd.loss_weight == 1.5
