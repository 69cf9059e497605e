"""Every detection config builds, without touching the network.

Those for classification and those of MMRazor have test_cls_configs.py and test_mixed_configs.py.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmengine.registry import DefaultScope
from small import ROOT, build, load, recipe_id, recipes_in, set_level_embed

CONFIGS = ROOT / "configs"
FILES = sorted(p for p in CONFIGS.rglob("*.py") if not {"cls", "mixed"} & set(p.parts))
RECIPES = recipes_in(p for p in FILES if "_base_" not in p.parts)
OF_COCO = [recipe for recipe in RECIPES if recipe[0].parent == CONFIGS]
# The pair of the digits by all methods, COCO's by the one that reads most: what both sides offer to
# losses is the same for all of them.
BUILT = [
    (path, method)
    for path, method in RECIPES
    if path.parent != CONFIGS or method in (None, "review_nd")
]

pytestmark = pytest.mark.usefixtures("offline")


def build_side(model: dict) -> torch.nn.Module:
    """Build a detector's config as MMRazor does, which also takes ``cfg_path='mmdet::...'``."""
    from mmrazor.registry import MODELS

    with DefaultScope.overwrite_default_scope("mmdet"):
        return set_level_embed(MODELS.build(model))


@pytest.fixture(autouse=True)
def zeros_for_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random numbers would take most of the time in which a model is built."""
    for name in ("kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "uniform_", "normal_"):
        monkeypatch.setattr(torch.nn.init, name, lambda tensor, *_, **__: tensor.data.zero_())


@pytest.fixture(scope="module")
def random_teacher(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict], str]:
    """Gives a file of random weights for a teacher's config; equal teachers share theirs."""
    folder = tmp_path_factory.mktemp("teachers")
    files: dict[str, Path] = {}

    def file(teacher: dict) -> str:
        key = str(teacher)
        if key not in files:
            files[key] = folder / f"{len(files)}.pth"
            # DINO's constructor writes into the config of its head.
            torch.save(build_side(copy.deepcopy(teacher)).state_dict(), files[key])
        return str(files[key])

    return file


@pytest.mark.parametrize(("path", "method"), BUILT, ids=recipe_id)
def test_recipe_builds(path, method, random_teacher):
    cfg = load(path, method)
    if "teacher" in cfg.model:
        cfg.model.teacher_ckpt = random_teacher(cfg.model.teacher)
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


@pytest.mark.parametrize(("path", "method"), RECIPES, ids=recipe_id)
def test_recipe_can_train_and_evaluate(path, method):
    cfg = load(path, method)
    for key in (
        *("train_dataloader", "train_cfg", "optim_wrapper"),
        *("val_dataloader", "val_cfg", "val_evaluator"),
        *("test_dataloader", "test_cfg", "test_evaluator"),
    ):
        assert cfg.get(key), key
    assert "bbox" in cfg.val_evaluator.metric
    assert cfg.default_scope == "mmdet"


def test_students_of_the_demo_are_the_same():
    """A gain must come from the teacher, not from another student or another budget."""
    plain = load(CONFIGS / "digits" / "plain.py")
    for path, method in RECIPES:
        cfg = load(path, method)
        if path.parent.name == "digits" and "teacher" in cfg.model:
            assert cfg.model.architecture == plain.model
            for key in ("train_dataloader", "param_scheduler", "train_cfg"):
                assert cfg[key] == plain[key], key
            # What applies to connectors alone may differ.
            for key in ("type", "optimizer", "clip_grad"):
                assert cfg.optim_wrapper[key] == plain.optim_wrapper[key], key


# ReviewKD: arXiv 2104.09044; KD++ and ReviewKD++: arXiv 2305.17007.
PUBLISHED = {
    ("frcnn_r101_r18", "kd_nd"): dict(loss_kd=1.0, loss_nd=1.5),
    ("frcnn_r101_r50", "kd_nd"): dict(loss_kd=1.0, loss_nd=1.0),
    ("frcnn_r50_mv2", "kd_nd"): dict(loss_kd=1.0, loss_nd=1.0),
    ("frcnn_r101_r18", "review_nd"): dict(loss_review=1.2, loss_nd=1.5),
    ("frcnn_r101_r50", "review_nd"): dict(loss_review=1.4, loss_nd=1.0),
    ("frcnn_r50_mv2", "review_nd"): dict(loss_review=2.2, loss_nd=1.5),
    ("frcnn_r101_r18", "review"): dict(loss_review=1.2),
    ("frcnn_r101_r50", "review"): dict(loss_review=1.0),
    ("frcnn_r50_mv2", "review"): dict(loss_review=2.0),
    ("mrcnn_r101_r50", "review_nd"): dict(loss_review=0.8, loss_nd=1.0),
    ("retinanet_r101_r50_review", None): dict(loss_review=1.0),
    # MMYOLO, configs/rtmdet/distillation; PKD: arXiv 2207.02039 and MMRazor.
    ("rtmdet_l_s_cwd", None): dict.fromkeys(("loss_cwd0", "loss_cwd1", "loss_cwd2"), 1),
    ("atss_r101_frcnn_r50_pkd", None): {f"loss_pkd{level}": 6 for level in range(4)},
}


@pytest.mark.parametrize(("pair", "method"), PUBLISHED)
def test_weights_of_a_coco_recipe_are_the_published_ones(pair, method):
    losses = load(CONFIGS / f"{pair}.py", method).model.distiller.distill_losses
    found = {loss: cfg.loss_weight for loss, cfg in losses.items()}
    assert found == PUBLISHED[pair, method]


def test_the_recipes_that_name_a_method_are_their_pairs_without_one():
    for name, pair in (
        ("frcnn_r101_r18_review_nd", "frcnn_r101_r18"),
        ("digits/review_nd_kd", "digits/frcnn_r50_r18"),
    ):
        assert load(CONFIGS / f"{name}.py").to_dict() == load(CONFIGS / f"{pair}.py").to_dict()


def test_gfls_recipe_is_what_kd_det_distill_makes_of_the_pair():
    from kd_det.pairing.compose import pair

    made = pair(
        "mmdet::gfl/gfl_r50_fpn_1x_coco.py", "mmdet::gfl/gfl_r101_fpn_ms-2x_coco.py", "crosskd"
    ).cfg.model
    own = load(CONFIGS / "gfl_r101_r50_crosskd.py").model
    own.pop("teacher_ckpt"), made.pop("teacher_ckpt")
    assert made.pop("speed") == dict(auto=True)  # a recipe's runs repeat each other bit for bit
    for side in ("student_recorders", "teacher_recorders"):
        made.distiller[side].pop("fpn")  # which no loss reads
    assert made.to_dict() == own.to_dict()


def test_coco_recipes_differ_in_nothing_but_students_and_methods():
    first = load(CONFIGS / "frcnn_r101_r18.py", "kd")
    for path, method in OF_COCO:
        if path.stem.startswith("frcnn"):
            cfg = load(path, method)
            for key in ("train_dataloader", "optim_wrapper", "param_scheduler", "train_cfg"):
                assert cfg[key] == first[key], (path.name, method, key)
            assert cfg.model.distiller.student_recorders == first.model.distiller.student_recorders
