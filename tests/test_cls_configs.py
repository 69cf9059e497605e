"""Every classification recipe can be read; every kind of pair and method trains a step, offline."""

from __future__ import annotations

import pytest
import torch
from small import load, recipe_id, recipes_in
from small_cls import (
    CLS,
    batch,
    build_classifier,
    build_distiller,
    give_random_centers,
    gradients_reach_student,
    losses_of,
)

pytestmark = pytest.mark.usefixtures("offline")

RECIPES = recipes_in(p for p in sorted(CLS.rglob("*.py")) if "_base_" not in p.parts)
STUDENTS = [recipe for recipe in RECIPES if recipe[0].stem not in ("plain", "teacher")]
# All pairs by the method that reads most of a pair; one of each data set by all methods.
BUILT = [
    (path, method)
    for path, method in STUDENTS
    if method in (None, "review_nd") or path.stem in ("cifar100_r32x4_sv1", "imagenet_r34_r18")
]
METHODS = {"kd", "kd_nd", "dkd_nd", "dist_nd", "review", "review_nd"}
# Pixels: those of CIFAR and of the digits; of ImageNet enough for a stride of 32.
SIDES = dict(cifar100=32, imagenet=64, r14=8)


@pytest.mark.parametrize(("path", "method"), BUILT, ids=recipe_id)
def test_every_loss_of_a_recipe_reaches_the_student(path, method):
    cfg = load(path, method)
    if "deitb" in path.stem:  # parts of this teacher would be downloaded
        cfg.model.teacher.backbone.pretrained = False
        del cfg.model.teacher.head["init_cfg"]
    model = build_distiller(cfg)
    give_random_centers(model)
    side = SIDES[path.stem.split("_")[0]]
    losses = losses_of(model, batch(cfg.model.architecture.head.num_classes, side))
    distilled = {k.removeprefix("distill."): v for k, v in losses.items() if "distill." in k}
    assert distilled.keys() == model.distiller.distill_losses.keys()
    for name, loss in {**distilled, "student": losses["student.loss"]}.items():
        assert loss.isfinite() and loss > 0, name
        assert gradients_reach_student(model, loss), name


@pytest.mark.parametrize(("path", "method"), STUDENTS, ids=recipe_id)
def test_a_recipe_has_the_connectors_and_hooks_that_its_losses_need(path, method):
    cfg = load(path, method)
    hooks = {hook.type: hook for hook in cfg.custom_hooks}
    distiller = cfg.model.distiller
    losses = distiller.distill_losses
    assert ("kd_det.ClassCenterHook" in hooks) == ("loss_nd" in losses)
    read = [
        each
        for arguments in distiller.loss_forward_mappings.values()
        for each in arguments.values()
    ]
    assert {each.connector for each in read if "connector" in each} == {*distiller.connectors}
    # As published: all distillation losses but ND are warmed up.
    schedules = hooks["kd_det.LossWeightHook"].schedules
    assert schedules.keys() == losses.keys() - {"loss_nd"}
    warmup = 20 if path.stem.startswith("cifar100") else 5
    assert all(schedule == dict(warmup=warmup) for schedule in schedules.values())


@pytest.mark.parametrize(("path", "method"), RECIPES, ids=recipe_id)
def test_recipe_can_train_and_evaluate(path, method):
    cfg = load(path, method)
    for part in ("train", "val", "test"):
        assert cfg.get(f"{part}_dataloader"), part
        assert cfg.get(f"{part}_cfg") is not None, part
    assert cfg.default_scope == "mmpretrain"
    assert cfg.val_evaluator.type == "Accuracy"
    if path.stem in ("plain", "teacher"):
        assert build_classifier(cfg.model)(torch.zeros(2, 3, 8, 8)).shape == (2, 10)


# By loss: kd and nd of KD++; tckd, nckd and nd of DKD++; review and nd of ReviewKD++; dist and nd
# of DIST++ where it is published. arXiv 2305.17007 and its code.
PUBLISHED = {
    "cifar100_r56_r20": ((1.0, 2.0), (2.5, 4.0, 3.5), (1.2, 1.0), (2.0, 1.0)),
    "cifar100_r32x4_r8x4": ((3.5, 2.0), (2.0, 8.0, 0.5), (8.0, 1.0), (1.5, 4.0)),
    "cifar100_wrn40x2_wrn40x1": ((1.0, 1.5), (1.0, 6.0, 1.0), (5.0, 4.0), (2.5, 3.0)),
    "cifar100_r50_mv2": ((3.0, 0.5), (0.5, 8.0, 1.0), (6.0, 2.0), (7.0, 1.0)),
    "cifar100_r32x4_sv1": ((2.5, 1.5), (0.5, 8.0, 4.0), (7.0, 1.0), (2.5, 3.0)),
    "cifar100_r32x4_sv2": ((4.0, 0.5), (0.5, 6.0, 0.5), (8.0, 1.5), (3.0, 4.0)),
    "imagenet_r34_r18": ((2.5, 1.0), (0.8, 0.5, 1.0), (1.0, 3.0), None),
    "imagenet_r50_r18": ((4.0, 1.0), (0.6, 0.5, 2.0), (3.0, 2.0), None),
    "imagenet_r101_r18": ((3.5, 4.0), (0.8, 0.5, 1.0), (3.0, 1.0), None),
    "imagenet_r152_r18": ((4.0, 2.0), (1.0, 1.0, 1.0), (3.0, 1.0), None),
    "imagenet_r50_mv1": ((4.0, 1.0), (0.8, 1.0, 1.0), (8.0, 4.0), None),
}


@pytest.mark.parametrize("pair", PUBLISHED)
def test_weights_are_the_published_ones(pair):
    losses = {m: load(CLS / f"{pair}.py", m).model.distiller.distill_losses for m in METHODS}
    kd, dkd, review, dist = PUBLISHED[pair]
    tau = 4 if pair.startswith("cifar") else 1
    assert (losses["kd_nd"].loss_kd.loss_weight, losses["kd_nd"].loss_nd.loss_weight) == kd
    assert losses["kd_nd"].loss_kd.tau == losses["dkd_nd"].loss_dkd.tau == tau
    found = losses["dkd_nd"]
    assert (found.loss_dkd.alpha, found.loss_dkd.beta, found.loss_nd.loss_weight) == dkd
    found = losses["review_nd"]
    assert (found.loss_review.loss_weight, found.loss_nd.loss_weight) == review
    if dist is not None:
        found = losses["dist_nd"]
        assert (found.loss_dist.loss_weight, found.loss_nd.loss_weight) == dist


@pytest.mark.parametrize("pair", [pair for pair in PUBLISHED if pair.startswith("cifar")])
def test_schedule_of_cifar_is_the_published_one(pair):
    cfg = load(CLS / f"{pair}.py", "kd_nd")
    small = pair.endswith(("mv2", "sv1", "sv2"))
    assert cfg.optim_wrapper.optimizer.lr == (0.02 if small else 0.1)
    assert cfg.optim_wrapper.optimizer.weight_decay == 5e-4 and cfg.optim_wrapper.optimizer.nesterov
    assert cfg.param_scheduler.milestones == [150, 180, 210]
    assert cfg.train_cfg.max_epochs == 240 and cfg.train_dataloader.batch_size == 64
    assert cfg.train_dataloader.dataset.download is False


def test_students_of_the_digits_are_the_same():
    """A gain must come from the teacher, not from another student or another budget."""
    plain = load(CLS / "digits" / "plain.py")
    for path, method in RECIPES:
        if path.parent.name != "digits":
            continue
        cfg = load(path, method)
        if method is not None:
            student = cfg.model.architecture
            student.backbone.pop("out_indices")  # what is recorded, not what is computed
            assert student == plain.model
        for key in ("train_dataloader", "param_scheduler", "train_cfg", "optim_wrapper"):
            assert cfg[key] == plain[key], (path.stem, key)
