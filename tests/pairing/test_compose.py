"""What a pair's config consists of, and which pairs there are not."""

from __future__ import annotations

import pytest
from small import ROOT
from zoo import FASTER, STUDENTS, student, write

import kd_det
from kd_det.pairing import PairingError
from kd_det.pairing.compose import pair
from kd_det.recipes import load_named

PLAIN, TEACHER = (str(ROOT / "configs" / "digits" / f"{name}.py") for name in ("plain", "teacher"))


@pytest.fixture(scope="module")
def options(digits, teacher_ckpt):
    return dict(
        teacher_ckpt=str(teacher_ckpt),
        data=str(digits),
        epochs=2,
        batch_size=3,
        cfg_options={"model.distiller.distill_losses.loss_nd.loss_weight": 0.5},
    )


@pytest.fixture(scope="module")
def made(options):
    return pair(PLAIN, TEACHER, "review_nd", **options)


def test_a_config_has_all_that_a_recipe_has(made, teacher_ckpt):
    cfg = made.cfg
    recipe = load_named(ROOT / "configs" / "digits" / "review_nd.py")
    assert cfg.model.architecture == recipe.model.architecture
    assert cfg.model.teacher == recipe.model.teacher
    assert cfg.model.teacher_ckpt == str(teacher_ckpt)
    connectors = recipe.model.distiller.connectors
    assert cfg.model.distiller.connectors == connectors
    assert cfg.custom_hooks == recipe.custom_hooks
    assert cfg.default_hooks.exact_resume == recipe.default_hooks.exact_resume
    assert cfg.default_hooks.finite_loss == recipe.default_hooks.finite_loss
    # It measures; nobody said what is to be reached.
    assert cfg.default_hooks.teacher_accuracy == dict(type="kd_det.TeacherAccuracyHook")
    assert cfg.optim_wrapper.optimizer == recipe.optim_wrapper.optimizer


def test_what_was_asked_for_is_in_it(made):
    assert made.cfg.train_dataloader.batch_size == 3
    assert made.cfg.train_cfg.max_epochs == 2
    assert made.cfg.model.distiller.distill_losses.loss_nd.loss_weight == 0.5
    assert made.cfg.work_dir == "work_dirs/teacher_plain_review_nd"
    # What is said above was decided without it.
    assert made.decisions[-1] == (
        "changed by cfg_options, whatever stands above: "
        "model.distiller.distill_losses.loss_nd.loss_weight"
    )


def test_the_table_says_what_was_found(made, digits):
    lines = made.describe().splitlines()
    assert lines[0].split() == ["teacher", "student"]
    rows = {line[:19].strip(): line[19:].split("  ") for line in lines[1:13]}
    assert "ResNet-50" in lines[3] and "ResNet-18" in lines[3]
    assert "64 at 4, 64 at 8, 64 at 16, 64 at 32, 64 at 64" in rows["channels at strides"]
    decided = lines[lines.index("Decided, for the method review_nd:") + 1 :]
    assert f"  - data: 24 images of {digits}/annotations/instances_train.json in " in decided[0]
    assert "  - ReviewFusion 64 -> 64" in decided


def test_the_function_gives_the_same_config(made, options):
    cfg = kd_det.distill_config(PLAIN, TEACHER, "review_nd", **options)
    assert cfg.to_dict() == made.cfg.to_dict()


def test_imports_are_taken_over_and_images_padded_for_both(tmp_path):
    path = write(
        tmp_path / "s.py", data_preprocessor=dict(pad_size_divisor=48), **STUDENTS["narrow"]
    )
    with open(path, "a") as file:
        file.write("find_unused_parameters = True\ncustom_imports = dict(imports=['zoo'])\n")
    made = pair(path, FASTER, "kd")
    assert made.cfg.find_unused_parameters is True and made.cfg.custom_imports.imports == ["zoo"]
    for side in (made.cfg.model.architecture, made.cfg.model.teacher):
        assert side.data_preprocessor.pad_size_divisor == 96
    assert any("multiples of 96, of the student's 48" in each for each in made.decisions)


@pytest.mark.parametrize(
    ("learner", "teacher", "reason"),
    [
        ("r18", "mmdet::solo/solo_r50_fpn_1x_coco.py", "is a SOLO, which segments objects"),
        ("mmdet::solo/solo_r50_fpn_1x_coco.py", FASTER, "a Mask R-CNN, CondInst or RTMDet-Ins"),
        (
            "r18",
            "mmdet::tridentnet/tridentnet_r50-caffe_1x_coco.py",
            "expected a backbone with one",
        ),
    ],
)
def test_what_cannot_be_paired_names_both_and_a_way(tmp_path, learner, teacher, reason):
    learner = student(learner, tmp_path)
    with pytest.raises(PairingError) as caught:
        pair(learner, teacher)
    message = str(caught.value)
    assert message.startswith(f"{teacher} cannot teach {learner}: ") and reason in message


def test_wrong_numbers_are_told():
    with pytest.raises(ValueError, match="expected a batch size >= 1, found 0"):
        pair(PLAIN, TEACHER, batch_size=0)
