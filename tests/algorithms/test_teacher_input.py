"""The teacher gets what its own data preprocessor would have made, from the student's batch."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.models import DetDataPreprocessor
from mmdet.structures import DetDataSample
from mmengine.model import BaseDataPreprocessor, ImgDataPreprocessor
from small import build, digits_config, runner
from torch import nn

from kd_det.algorithms import WiringError
from kd_det.algorithms.teacher_input import TeacherInput

SIZES = [(50, 70), (33, 64), (64, 41)]
# In the order after a swap; caffe's, whose images keep their BGR, and one for all channels too.
NORMS: dict[str, dict[str, Any]] = {
    "none": dict(),
    "pytorch": dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
    "caffe": dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0]),
    "one for all": dict(mean=[127], std=[128]),
}
STYLES = {
    f"{name}{' swapped' * swap}": dict(norm, bgr_to_rgb=swap)
    for name, norm in NORMS.items()
    for swap in (False, True)
}
PADS = [
    dict(pad_size_divisor=divisor, pad_value=value)
    for divisor, value in itertools.product((1, 32, 128), (0, -7.25))
]
PYTORCH = dict(NORMS["pytorch"], bgr_to_rgb=True, pad_size_divisor=32)
# Grey levels, of 255: the rounding of float32 in two normalisations.
TOLERANCE = 5e-5


def raw(sizes: list[tuple[int, int]] = SIZES) -> dict[str, list]:
    """Images of different sizes as a dataset gives them."""
    make = torch.Generator().manual_seed(0)
    images = [torch.randint(256, (3, *size), generator=make, dtype=torch.uint8) for size in sizes]
    samples = [DetDataSample(metainfo=dict(img_shape=size)) for size in sizes]
    return {"inputs": images, "data_samples": samples}


def convert(student: nn.Module, teacher: nn.Module, **options: Any) -> torch.Tensor:
    batch = student(raw(), **options)
    return TeacherInput(student, teacher)(batch["inputs"], batch["data_samples"])


def assert_as_own(found: torch.Tensor, teacher: DetDataPreprocessor) -> None:
    """Equal to the teacher's own batch: images to rounding, padding exactly."""
    expected = teacher(raw())["inputs"]
    assert found.shape == expected.shape and found.dtype == expected.dtype
    inside = torch.zeros(len(SIZES), 1, *expected.shape[-2:], dtype=torch.bool)
    for i, (height, width) in enumerate(SIZES):
        inside[i, :, :height, :width] = True
    assert torch.equal(found.masked_fill(inside, 0), expected.masked_fill(inside, 0))
    std = getattr(teacher, "std", torch.ones(1, 1, 1))
    assert ((found - expected) * std).abs().max() < TOLERANCE


@pytest.mark.parametrize("teacher", STYLES)
@pytest.mark.parametrize("student", STYLES)
def test_batch_is_that_of_the_teachers_own_preprocessor(student: str, teacher: str):
    for student_pad, teacher_pad in itertools.product(PADS, PADS):
        own = DetDataPreprocessor(**STYLES[teacher], **teacher_pad)
        assert_as_own(convert(DetDataPreprocessor(**STYLES[student], **student_pad), own), own)


def test_preprocessor_of_mmengine_is_converted_too():
    own = DetDataPreprocessor(**PYTORCH)
    assert_as_own(convert(ImgDataPreprocessor(**NORMS["caffe"], pad_size_divisor=8), own), own)


def test_order_is_in_which_the_file_is_read_whichever_option_swaps():
    own = DetDataPreprocessor(**NORMS["pytorch"], rgb_to_bgr=True)
    student = DetDataPreprocessor(**NORMS["caffe"])
    assert_as_own(convert(student, own), own)


def test_stacked_batch_of_one_size():
    images = torch.randint(256, (2, 3, 40, 50), dtype=torch.uint8)
    samples = [DetDataSample(metainfo=dict(img_shape=(40, 50))) for _ in images]
    student = DetDataPreprocessor(**PYTORCH)
    teacher = DetDataPreprocessor(**NORMS["caffe"], pad_size_divisor=16, pad_value=3)
    batch = student({"inputs": images, "data_samples": samples})
    expected = teacher({"inputs": images, "data_samples": samples})["inputs"]
    found = TeacherInput(student, teacher)(batch["inputs"], batch["data_samples"])
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        (PYTORCH, PYTORCH),
        (dict(), dict(mean=[0, 0, 0], std=[1, 1, 1])),
        (PYTORCH, PYTORCH | dict(batch_augments=[dict(type="BatchFixedSizePad", size=(99, 99))])),
        (dict(bgr_to_rgb=True), dict(rgb_to_bgr=True, pad_mask=True, non_blocking=True)),
    ],
)
def test_preprocessors_that_do_the_same_hand_on_the_same_tensor(student: dict, teacher: dict):
    student, teacher = DetDataPreprocessor(**student), DetDataPreprocessor(**teacher)
    batch = student(raw())
    assert TeacherInput(student, teacher)(batch["inputs"], batch["data_samples"]) is batch["inputs"]


def test_batch_size_of_the_students_augmentation_is_kept():
    fixed = [dict(type="BatchFixedSizePad", size=(200, 160))]
    student = DetDataPreprocessor(**PYTORCH, batch_augments=fixed)
    teacher = DetDataPreprocessor(**NORMS["caffe"], pad_size_divisor=32, pad_value=5)
    found = convert(student, teacher, training=True)
    assert found.shape == (3, 3, 200, 160)
    assert (found[..., 64:, :] == 5).all()
    assert_as_own(found[..., :64, :96], teacher)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_batch_is_converted_in_float32(dtype: torch.dtype):
    student, teacher = DetDataPreprocessor(**PYTORCH), DetDataPreprocessor(**NORMS["caffe"])
    batch = student(raw())
    low = batch["inputs"].to(dtype)
    convert = TeacherInput(student, teacher)
    found = convert(low, batch["data_samples"])
    assert found.dtype == dtype
    assert torch.equal(found, convert(low.float(), batch["data_samples"]).to(dtype))


def test_autocast_does_not_lower_the_precision():
    own = DetDataPreprocessor(**NORMS["caffe"], pad_size_divisor=64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_as_own(convert(DetDataPreprocessor(**PYTORCH), own), own)


def test_no_value_is_read_from_the_device():
    """On the meta device, which has no values, whatever waits for one raises."""
    student = DetDataPreprocessor(**PYTORCH)
    teacher = DetDataPreprocessor(**NORMS["caffe"], pad_size_divisor=128)
    batch = student(raw())
    found = TeacherInput(student, teacher).to("meta")(
        batch["inputs"].to("meta"), batch["data_samples"]
    )
    assert found.shape == (3, 3, 128, 128)


def test_nothing_of_it_is_in_checkpoints():
    module = TeacherInput(DetDataPreprocessor(**PYTORCH), DetDataPreprocessor())
    assert module.state_dict() == {}


class Gamma(DetDataPreprocessor):
    """A preprocessor of somebody's own."""

    def __init__(self, gamma: float, **options: Any) -> None:
        super().__init__(**options)
        self.gamma = gamma

    def forward(self, data: dict, training: bool = False) -> dict:
        data = super().forward(data, training)
        return data | {"inputs": data["inputs"] ** self.gamma}


class Renamed(DetDataPreprocessor):
    """A subclass that changes nothing of what happens to images."""


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        (Gamma(2), Gamma(3), r"student .*'Gamma'.*'gamma': 2.*teacher .*'Gamma'.*'gamma': 3"),
        (DetDataPreprocessor(), Gamma(1), r"expected on both sides.*student .*'Det.*teacher .*'Ga"),
        (Gamma(2, mean=[1], std=[1]), Gamma(2, mean=[2], std=[1]), r"'mean': \[1\].*'mean': \[2\]"),
        (BaseDataPreprocessor(), DetDataPreprocessor(), r"student .*'BaseDataPreprocessor'"),
    ],
)
def test_unknown_preprocessor_is_refused(student: nn.Module, teacher: nn.Module, message: str):
    with pytest.raises(WiringError, match=message):
        TeacherInput(student, teacher)


def test_equal_unknown_preprocessors_hand_on_the_same_tensor():
    student, teacher = Gamma(2), Gamma(2)
    batch = student(raw())
    assert TeacherInput(student, teacher)(batch["inputs"], batch["data_samples"]) is batch["inputs"]
    own = Renamed(**PYTORCH)
    assert_as_own(convert(DetDataPreprocessor(), own), own)


CAFFE_TEACHER = {
    "model.teacher.data_preprocessor": dict(
        _delete_=True, type="DetDataPreprocessor", **NORMS["caffe"], pad_value=9
    )
}


def config(digits: Path, teacher_ckpt: Path, work_dir: Path, divisor: int) -> Any:
    cfg = digits_config(
        "review_nd_kd", digits, work_dir, **{"model.teacher_ckpt": str(teacher_ckpt)}
    )
    cfg.merge_from_dict(CAFFE_TEACHER)
    cfg.model.teacher.data_preprocessor.pad_size_divisor = divisor
    cfg.custom_hooks = []
    distiller = cfg.model.distiller
    # ReviewKD compares maps of one size; the ND loss asks for class centers.
    for name in ("loss_review", "loss_nd"):
        del distiller.distill_losses[name], distiller.loss_forward_mappings[name]
    distiller.connectors = {}
    return cfg


def test_features_of_a_step_are_those_of_the_teachers_own_preprocessor(
    digits: Path, teacher_ckpt: Path, tmp_path: Path
):
    model = build(config(digits, teacher_ckpt, tmp_path, 128).model).train()
    batch = raw()
    for sample in batch["data_samples"]:
        sample.gt_instances = build_instances()
    found: list[tuple] = []
    hook = model.teacher.neck.register_forward_hook(lambda _, __, maps: found.append(maps))
    losses = model(**model.data_preprocessor(batch, training=True), mode="loss")
    hook.remove()
    assert losses["distill.loss_kd"] > 0
    with torch.no_grad():
        expected = model.teacher.extract_feat(model.teacher.data_preprocessor(raw())["inputs"])
        wrong = model.teacher.extract_feat(model.data_preprocessor(raw())["inputs"])
    assert len(found) == 1 and len(expected) == 5
    for level, own in zip(found[0], expected):
        torch.testing.assert_close(level, own, rtol=1e-4, atol=1e-4 * own.abs().max().item())
    assert wrong[0].shape != expected[0].shape


def build_instances() -> Any:
    from mmengine.structures import InstanceData

    return InstanceData(bboxes=torch.tensor([[4.0, 4.0, 30.0, 30.0]]), labels=torch.tensor([1]))


def test_data_preprocessor_of_the_algorithm_is_the_one_that_is_converted(
    digits: Path, teacher_ckpt: Path, tmp_path: Path
):
    cfg = config(digits, teacher_ckpt, tmp_path, 32)
    cfg.model.data_preprocessor = cfg.model.teacher.data_preprocessor
    assert build(cfg.model).teacher_input.is_identity


def test_validation_of_mmrazor_gives_the_teacher_its_own_input(
    digits: Path, teacher_ckpt: Path, tmp_path: Path
):
    cfg = config(digits, teacher_ckpt, tmp_path / "run", 32)
    cfg.val_cfg = dict(type="mmrazor.SingleTeacherDistillValLoop")
    run = runner(cfg)
    own = DetDataPreprocessor(**NORMS["caffe"], pad_value=9, pad_size_divisor=32)
    inputs: list[torch.Tensor] = []
    run.model.teacher.backbone.register_forward_pre_hook(lambda _, x: inputs.append(x[0]))
    run.val()
    batches = [own(batch)["inputs"] for batch in run.val_dataloader]
    assert len(inputs) == len(batches) == 2
    assert all(torch.equal(found, expected) for found, expected in zip(inputs, batches))
