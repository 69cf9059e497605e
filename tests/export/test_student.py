"""An exported student needs nothing of kd_det, and is the student that the run evaluated."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tracemalloc
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from safetensors import safe_open
from safetensors.torch import save_file
from small import ROOT, digits_config, runner
from small_cls import CLS, build_classifier

from kd_det.algorithms import CheckpointError
from kd_det.export.plain_config import plain_config
from kd_det.export.student import _step, export_student, logged_metrics
from kd_det.recipes import load_named

EMA = dict(type="EMAHook", momentum=0.2, priority="ABOVE_NORMAL")


@pytest.fixture(scope="module")
def detection(digits: Path, teacher_ckpt: Path, tmp_path_factory: Any) -> tuple[Path, Config]:
    """Work directory and config of a distillation with averaged weights."""
    work_dir = tmp_path_factory.mktemp("export") / "run"
    cfg = digits_config("review_nd_kd", digits, work_dir)
    cfg.model.teacher_ckpt = str(teacher_ckpt)
    cfg.train_cfg.max_epochs = 2
    for part in ("val", "test"):
        cfg[f"{part}_dataloader"].batch_size = 1  # as an inferencer's; others round differently
    cfg.custom_hooks.append(EMA)
    cfg.default_hooks.checkpoint.save_best = "coco/bbox_mAP"
    runner(cfg).train()
    return work_dir, cfg


@pytest.fixture(scope="module")
def classification(tmp_path_factory: Any) -> tuple[Path, Config]:
    """Work directory and config of one whose data and models are MMPretrain's."""
    root = tmp_path_factory.mktemp("export_cls")
    numbers = np.random.RandomState(0)
    for name in ("dark", "light"):
        (root / "data" / name).mkdir(parents=True)
        for i in range(4):
            image = numbers.randint(0, 128, (16, 16, 3)) + (128 if name == "light" else 0)
            cv2.imwrite(str(root / "data" / name / f"{i}.png"), image)
    cfg = load_named(CLS / "digits" / "kd.py")
    object.__setattr__(cfg, "_format_python_code", False)
    for part in ("train", "val", "test"):
        pipeline = [dict(type="LoadImageFromFile"), dict(type="PackInputs")]
        cfg[f"{part}_dataloader"].dataset = dict(
            type="CustomDataset", data_root=str(root / "data"), pipeline=pipeline
        )
        cfg[f"{part}_dataloader"].batch_size = 1 if part == "test" else 4
    for side, channels in (("architecture", 4), ("teacher", 8)):
        cfg.model[side].backbone = dict(
            type="ResNet_CIFAR", depth=18, stem_channels=channels, base_channels=channels
        )
        cfg.model[side].head.update(num_classes=2, in_channels=8 * channels)
    torch.save(build_classifier(cfg.model.teacher).state_dict(), root / "teacher.pth")
    cfg.model.teacher_ckpt = str(root / "teacher.pth")
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    cfg.work_dir = str(root / "run")
    runner(cfg).train()
    return root / "run", cfg


def standalone(kind: str, folder: Path, images: list[Path]) -> dict[str, Any]:
    """What a process without kd_det and mmrazor finds with an export."""
    script = Path(__file__).with_name("standalone_report.py")
    done = subprocess.run(
        [sys.executable, str(script), kind, str(folder), *map(str, images)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def own(cfg: Config, checkpoint: Path, **options: object) -> tuple[dict[str, float], list]:
    """Metrics and samples of the algorithm's own evaluation, teacher and all."""
    cfg = cfg.copy()
    cfg.merge_from_dict(dict(options, load_from=str(checkpoint)))
    cfg.custom_hooks = []
    run = runner(cfg)
    samples: list = []
    loop = run.build_test_loop(run._test_loop)
    run._test_loop = loop
    process = loop.evaluator.process
    loop.evaluator.process = lambda data_samples, data_batch=None: (
        samples.extend(data_samples),
        process(data_samples=data_samples, data_batch=data_batch),
    )
    return run.test(), samples


def test_a_detector_alone_finds_what_the_run_finds(detection, digits):
    work_dir, cfg = detection
    images = sorted((digits / "val").glob("*.jpg"))
    alone = standalone("det", work_dir / "student", images)
    metrics, samples = own(cfg, work_dir / "epoch_2.pth")
    assert alone["metrics"] == metrics
    expected = {Path(sample.img_path).name: sample.pred_instances for sample in samples}
    assert sum(map(len, expected.values())) > 10
    assert len(alone["found"]) == len(images)
    for image, found in zip(images, alone["found"]):
        for name in ("bboxes", "scores", "labels"):
            assert found[name] == expected[image.name][name].tolist()


def test_a_classifier_alone_finds_what_the_run_finds(classification):
    work_dir, cfg = classification
    images = sorted((work_dir.parent / "data").rglob("*.png"))
    alone = standalone("cls", work_dir / "student", images)
    metrics, samples = own(cfg, work_dir / "epoch_1.pth")
    assert alone["metrics"] == metrics
    assert [each["pred_scores"] for each in alone["found"]] == [
        sample.pred_score.tolist() for sample in samples
    ]
    assert {each["pred_class"] for each in alone["found"]} <= {"dark", "light"}


def test_all_files_are_of_one_export(detection):
    folder = detection[0] / "student"
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.py", "metadata.json", "model.pth", "model.safetensors",
    ]  # fmt: skip
    saved = torch.load(folder / "model.pth", weights_only=True)
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(saved["state_dict"])
        for name, value in saved["state_dict"].items():
            assert torch.equal(value, file.get_tensor(name)), name
        kept = file.metadata()
    assert saved["meta"]["cfg"] == (folder / "config.py").read_text()
    for key, value in json.loads((folder / "metadata.json").read_text()).items():
        assert saved["meta"][key] == value
        assert kept[key] == (value if isinstance(value, str) else json.dumps(value))


def test_weights_are_the_averaged_ones_of_the_checkpoint(detection):
    work_dir, _ = detection
    checkpoint = torch.load(work_dir / "epoch_2.pth", weights_only=True)
    exported = torch.load(work_dir / "student" / "model.pth", weights_only=True)["state_dict"]
    averaged = checkpoint["state_dict"]
    names = [key for key in averaged if key.startswith("architecture.")]
    assert exported.keys() == {key.removeprefix("architecture.") for key in names}
    for name in names:
        assert torch.equal(exported[name.removeprefix("architecture.")], averaged[name])
    name = "architecture.roi_head.bbox_head.fc_cls.weight"
    assert not torch.equal(averaged[name], checkpoint["ema_state_dict"][f"module.{name}"])


def test_metadata_say_where_the_student_comes_from(detection, teacher_ckpt, digits):
    work_dir, _ = detection
    found = json.loads((work_dir / "student" / "metadata.json").read_text())
    log = next(work_dir.glob("*/vis_data/scalars.json")).read_text().splitlines()
    evaluation = json.loads(log[-1])
    assert found["metrics"]["coco/bbox_mAP"] == evaluation["coco/bbox_mAP"]
    assert found["metrics"].keys() == {key for key in evaluation if key.startswith("coco/")}
    assert found["model"] == "FasterRCNN" and found["requires"] == ["mmdet"]
    assert found["classes"] == list("0123456789")
    assert found["dataset"]["data_root"] == str(digits)
    assert (found["epoch"], found["iteration"], found["checkpoint"]) == (2, 12, "epoch_2.pth")
    assert found["method"]["algorithm"] == "kd_det.TeacherDistill"
    assert found["method"]["losses"]["loss_nd"] == "kd_det.NDLoss"
    digest = hashlib.sha256(teacher_ckpt.read_bytes()).hexdigest()
    assert found["teacher_file_sha256"] == digest
    assert found["versions"]["torch"] == version("torch")


def test_metadata_of_a_config_in_the_new_style(tmp_path):
    """Whose types are classes."""
    text = "from mmdet.datasets import CocoDataset\nfrom mmdet.models import FasterRCNN\n"
    text += "default_scope = 'mmdet'\nmodel = dict(type=FasterRCNN)\n"
    text += "train_dataloader = dict(dataset=dict(type=CocoDataset, data_root='data'))\n"
    (tmp_path / "new.py").write_text(text)
    run = Config.fromfile(tmp_path / "new.py")
    torch.save({"state_dict": {"weight": torch.ones(1)}}, tmp_path / "epoch_1.pth")
    found = export_student(tmp_path / "epoch_1.pth", run, plain_config(run), tmp_path / "student")
    assert found["model"].endswith(".FasterRCNN")
    assert found["dataset"]["type"].endswith(".CocoDataset")


def test_an_export_is_trained_on_like_any_model_of_mmdet(detection, tmp_path):
    """As mmdet's tools/train.py does it: the config is all that it takes."""
    folder = detection[0] / "student"
    cfg = Config.fromfile(folder / "config.py", format_python_code=False)
    cfg.update(load_from=str(folder / "model.pth"), work_dir=str(tmp_path))
    cfg.train_cfg.max_epochs = 1
    assert "paramwise_cfg" not in cfg.optim_wrapper and "constructor" not in cfg.optim_wrapper
    run = runner(cfg)
    run.train()
    assert type(run.model).__name__ == "FasterRCNN" and (tmp_path / "epoch_1.pth").is_file()


def test_no_weights_no_export(tmp_path):
    torch.save(dict(state_dict=dict(a=1)), tmp_path / "odd.pth")
    cfg = digits_config("plain", tmp_path, tmp_path)
    with pytest.raises(CheckpointError, match=r"odd\.pth: expected tensors, found .*\['a'\]"):
        export_student(tmp_path / "odd.pth", cfg, plain_config(cfg), tmp_path / "student")
    assert not (tmp_path / "student").exists()


def test_metrics_are_those_of_the_last_evaluation_at_that_step(tmp_path):
    for name, lines in dict(
        a=['{"teacher/x": 0.9, "step": 0}', '{"x": 0.1, "time": 3, "step": 2}'],
        b=['{"loss": 3.0, "iter": 2, "step": 2}', '{"x": 0.2, "step": 2}', '{"x": 0.3, "step'],
    ).items():
        (tmp_path / name / "vis_data").mkdir(parents=True)
        (tmp_path / name / "vis_data" / "scalars.json").write_text("\n".join(lines))
    assert logged_metrics(tmp_path, 2) == {"x": 0.2}
    assert logged_metrics(tmp_path, 3) is None


@pytest.mark.parametrize(
    "loop, logger, step",
    [
        (dict(by_epoch=True), {}, 3),
        (dict(type="EpochBasedTrainLoop"), {}, 3),
        (dict(type="IterBasedTrainLoop"), dict(log_metric_by_epoch=False), 70),
        (dict(by_epoch=False), {}, None),
    ],
)
def test_metrics_are_looked_up_as_the_logger_counts(loop, logger, step):
    run = Config(dict(train_cfg=loop, default_hooks=dict(logger=logger)))
    assert _step(dict(epoch=3, iter=70), run) == step


def peak_of(call) -> int:
    """Bytes that Python has at most during a second call: modules are imported by the first."""
    for _ in range(2):
        tracemalloc.start()  # of bytes in Python, not of tensors
        call()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


def test_no_file_is_in_memory_as_a_whole(tmp_path):
    cfg = Config(dict(model=dict(type="FasterRCNN"), default_scope="mmdet"))
    tied = torch.zeros(2**16)
    state = {"b": tied, "c": tied, "part": tied[:8]}
    state.update({f"a{i}": torch.zeros(2**16) for i in range(64)})
    torch.save(dict(state_dict=state, meta={}), tmp_path / "epoch_1.pth")
    source, plain = tmp_path / "epoch_1.pth", plain_config(cfg)
    peak = peak_of(lambda: export_student(source, cfg, plain, tmp_path / "student"))
    # safetensors itself copies all of it in its older releases; nothing of ours may on top.
    copies = {key: value.clone() for key, value in state.items()}
    least = peak_of(lambda: save_file(copies, tmp_path / "least.safetensors"))
    assert peak < least + 4 * 2**22 / 4
    saved = torch.load(tmp_path / "student" / "model.pth", weights_only=True)["state_dict"]
    assert all(torch.equal(saved[key], state[key]) for key in state)
    assert saved["part"].untyped_storage().nbytes() == 8 * 4
