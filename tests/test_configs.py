"""Every detection config builds, without touching the network.

Those for classification and those of MMRazor have test_cls_configs.py and test_mixed_configs.py.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from small import ROOT, build

CONFIGS = ROOT / "configs"
FILES = sorted(p for p in CONFIGS.rglob("*.py") if not {"cls", "mixed"} & set(p.parts))
RECIPES = [p for p in FILES if "_base_" not in p.parts]
BASES = [p for p in FILES if "_base_" in p.parts]

pytestmark = pytest.mark.usefixtures("offline")


def name_of(path: Path) -> str:
    return str(path.relative_to(CONFIGS))


def build_side(model: dict) -> torch.nn.Module:
    """Build a detector's config as MMRazor does, which also takes ``cfg_path='mmdet::...'``."""
    from mmrazor.registry import MODELS

    with DefaultScope.overwrite_default_scope("mmdet"):
        return MODELS.build(model)


@lru_cache
def _load(path: Path) -> Config:
    return Config.fromfile(path)


def load(path: Path) -> Config:
    return copy.deepcopy(_load(path))


@pytest.fixture(scope="module")
def random_teacher(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict], str]:
    """Gives a file of random weights for a teacher's config; equal teachers share theirs."""
    folder = tmp_path_factory.mktemp("teachers")
    files: dict[str, Path] = {}

    def file(teacher: dict) -> str:
        key = str(teacher)
        if key not in files:
            files[key] = folder / f"{len(files)}.pth"
            torch.save(build_side(teacher).state_dict(), files[key])
        return str(files[key])

    return file


@pytest.mark.parametrize("path", BASES, ids=name_of)
def test_base_parses(path):
    assert len(load(path)) > 0


@pytest.mark.parametrize("path", RECIPES, ids=name_of)
def test_recipe_builds(path, random_teacher):
    cfg = load(path)
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


@pytest.mark.parametrize("path", RECIPES, ids=name_of)
def test_recipe_can_train_and_evaluate(path):
    cfg = load(path)
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
    for path in RECIPES:
        cfg = load(path)
        if path.parent.name == "digits" and "teacher" in cfg.model:
            assert cfg.model.architecture == plain.model
            for key in ("train_dataloader", "param_scheduler", "train_cfg"):
                assert cfg[key] == plain[key], key
            # What applies to connectors alone may differ.
            for key in ("type", "optimizer", "clip_grad"):
                assert cfg.optim_wrapper[key] == plain.optim_wrapper[key], key


# By loss: kd, nd, review, dkd. ReviewKD: arXiv 2104.09044; KD++ and ReviewKD++: arXiv 2305.17007.
PUBLISHED = {
    "frcnn_r101_r18_kd_nd": dict(loss_kd=1.0, loss_nd=1.5),
    "frcnn_r101_r50_kd_nd": dict(loss_kd=1.0, loss_nd=1.0),
    "frcnn_r50_mv2_kd_nd": dict(loss_kd=1.0, loss_nd=1.0),
    "frcnn_r101_r18_review_nd": dict(loss_review=1.2, loss_nd=1.5),
    "frcnn_r101_r50_review_nd": dict(loss_review=1.4, loss_nd=1.0),
    "frcnn_r50_mv2_review_nd": dict(loss_review=2.2, loss_nd=1.5),
    "frcnn_r101_r18_review": dict(loss_review=1.2),
    "frcnn_r101_r50_review": dict(loss_review=1.0),
    "frcnn_r50_mv2_review": dict(loss_review=2.0),
    "mrcnn_r101_r50_review_nd": dict(loss_review=0.8, loss_nd=1.0),
    "retinanet_r101_r50_review": dict(loss_review=1.0),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_weights_of_a_coco_recipe_are_the_published_ones(name):
    losses = load(CONFIGS / f"{name}.py").model.distiller.distill_losses
    assert {loss: cfg.loss_weight for loss, cfg in losses.items()} == PUBLISHED[name]


@pytest.mark.parametrize("pair", ["r101_r18", "r101_r50", "r50_mv2"])
def test_every_pair_has_every_method(pair):
    methods = {p.stem.removeprefix(f"frcnn_{pair}_") for p in CONFIGS.glob(f"frcnn_{pair}_*.py")}
    required = {"kd", "kd_nd", "dkd", "dkd_nd", "dist_nd", "robust"}
    required |= {"review", "review_nd", "review_dkd"}
    assert required <= methods


def test_coco_recipes_differ_in_nothing_but_students_and_methods():
    first = load(CONFIGS / "frcnn_r101_r18_kd.py")
    for path in CONFIGS.glob("frcnn_*.py"):
        cfg = load(path)
        for key in ("train_dataloader", "optim_wrapper", "param_scheduler", "train_cfg"):
            assert cfg[key] == first[key], (path.name, key)
        assert cfg.model.distiller.student_recorders == first.model.distiller.student_recorders


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=name_of)
def test_coco_recipes_ask_for_a_teacher_as_good_as_the_zoos(path):
    """The floor lies two points under the figure that the recipe's comment gives."""
    cfg = load(path)
    text = "".join(p.read_text() for p in [path, *(CONFIGS / "_base_" / "pairs").glob("*.py")])
    block = text[: text.index(cfg.model.teacher_ckpt)]
    figure = float(re.findall(r"model zoo, ([\d.]+) box AP", block)[-1])
    assert cfg.default_hooks.teacher_accuracy.floor == pytest.approx((figure - 2) / 100)
