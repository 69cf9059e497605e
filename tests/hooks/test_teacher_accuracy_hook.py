"""The teacher is evaluated once, as it is, and a bad one stops the run before it begins."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from mmdet.models import DetDataPreprocessor
from mmengine.runner import Runner
from small import ROOT
from torch import nn

from kd_det import TeacherAccuracyHook
from kd_det.algorithms.checkpoint import weights_sha256
from kd_det.commands import common
from kd_det.hooks import TeacherAccuracyError

METRIC = "coco/bbox_mAP"


def asked(**options: object) -> dict:
    return dict(type="kd_det.TeacherAccuracyHook", **options)


def kept(run: Runner) -> Path:
    return Path(run.work_dir) / "teacher_metrics.json"


@contextmanager
def passes_of(module: nn.Module) -> Iterator[list[bool]]:
    """For each forward pass, whether anything was in train mode or kept a graph."""
    seen: list[bool] = []
    handle = module.register_forward_pre_hook(
        lambda module, _: seen.append(module.training or torch.is_grad_enabled())
    )
    yield seen
    handle.remove()


@pytest.fixture
def run(make) -> Runner:
    """A runner whose loops are built, to call hooks on."""
    run = make("work")
    assert run.train_loop.iter == 0 and run.val_loop is not None
    return run


def told(run: Runner, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    run.logger.addHandler(caplog.handler)
    return caplog


def test_metrics_are_those_of_the_teacher_as_the_evaluator_finds_them(run, caplog):
    teacher, loop = run.model.teacher, run.val_loop
    with torch.no_grad():
        for batch in loop.dataloader:
            samples = teacher.val_step(batch)
            loop.evaluator.process(data_samples=samples, data_batch=batch)
    expected = loop.evaluator.evaluate(len(loop.dataloader.dataset))
    logs = told(run, caplog)
    with passes_of(teacher.rpn_head) as passes:
        TeacherAccuracyHook().before_train(run)
    assert passes == [False, False]  # 8 images in batches of 4
    found = json.loads(kept(run).read_text())
    numbers = {k: v for k, v in expected.items() if isinstance(v, float)}
    assert any(value > 0 for value in numbers.values())
    assert found["metrics"] == numbers
    assert found["teacher_sha256"] == weights_sha256(teacher) and found["images"] == 8
    assert f"The teacher's metrics on the validation data: {METRIC} " in logs.text
    assert run.message_hub.get_scalar(f"teacher/{METRIC}").current() == numbers[METRIC]
    (log,) = Path(run.work_dir).glob("*/vis_data/scalars.json")
    (entry,) = [json.loads(line) for line in log.read_text().splitlines()]
    assert entry[f"teacher/{METRIC}"] == numbers[METRIC]


@pytest.mark.parametrize(
    "options",
    [
        {"model.speed": dict(teacher_dtype="bfloat16")},
        {"optim_wrapper.type": "AmpOptimWrapper", "optim_wrapper.dtype": "bfloat16"},
    ],
    ids=["speed", "amp"],
)
def test_teacher_is_evaluated_in_the_precision_of_training(make, caplog, options):
    run = make("work", **options)
    assert run.val_loop is not None
    seen = []
    head = run.model.teacher.roi_head.bbox_head
    head.fc_cls.register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    TeacherAccuracyHook().before_train(run)
    assert set(seen) == {torch.bfloat16}
    found = json.loads(kept(run).read_text())
    assert found["dtype"] == "bfloat16"
    kept(run).write_text(json.dumps({**found, "dtype": "float32"}))
    logs = told(run, caplog)
    TeacherAccuracyHook().before_train(run)
    assert "another run: expected dtype bfloat16" in logs.text


@pytest.mark.parametrize(
    ("algorithm", "loop", "own"),
    [
        ("kd_det.RoITeacherDistill", "ValLoop", True),
        ("kd_det.RoITeacherDistill", "mmrazor.SingleTeacherDistillValLoop", True),
        ("mmrazor.SingleTeacherDistill", "ValLoop", False),
    ],
)
def test_teacher_is_given_what_it_is_given_in_training(make, algorithm, loop, own):
    """MMRazor's algorithm feeds it the student's batches, whatever it was trained with."""
    options = {
        "model.type": algorithm,
        "model.distiller._scope_": "mmrazor",
        "model.teacher.data_preprocessor.mean": [10.0, 20.0, 30.0],
        "val_cfg.type": loop,
    }
    run = make("work", **options)
    assert run.val_loop is not None
    teacher, kept_preprocessor = run.model.teacher, run.model.teacher.data_preprocessor
    seen: list[torch.Tensor] = []
    teacher.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    TeacherAccuracyHook().before_train(run)
    assert teacher.data_preprocessor is kept_preprocessor
    side = run.cfg.model.teacher if own else run.cfg.model.architecture
    options = {k: v for k, v in side.data_preprocessor.items() if k != "type"}
    preprocess = DetDataPreprocessor(**options)
    expected = [preprocess(batch)["inputs"] for batch in run.val_dataloader]
    assert len(seen) == len(expected) == 2
    assert all(torch.equal(a, b) for a, b in zip(seen, expected))


def test_teacher_stays_as_it_was(run):
    teacher = run.model.teacher
    before = copy.deepcopy(teacher.state_dict())
    teacher.train()  # the hook must not rely on somebody else having switched it
    with passes_of(teacher.roi_head.bbox_head) as passes:
        TeacherAccuracyHook().before_train(run)
    assert passes and not any(passes)
    assert all(m.training for m in teacher.modules())
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())


def test_same_teacher_is_not_evaluated_again(run, caplog):
    TeacherAccuracyHook().before_train(run)
    logs = told(run, caplog)
    with passes_of(run.model.teacher) as passes:
        TeacherAccuracyHook().before_train(run)
    assert not passes and "of an earlier run read from" in logs.text


def change_weights(run: Runner) -> None:
    with torch.no_grad():
        run.model.teacher.roi_head.bbox_head.fc_cls.bias += 1
    del run.model.fixed_teacher.sha256  # as in a process of its own


def change_images(run: Runner) -> None:
    (resize,) = [t for t in run.val_dataloader.dataset.pipeline.transforms if "Resize" in repr(t)]
    resize.scale = (32, 32)


def change_input(run: Runner) -> None:
    run.model.teacher.data_preprocessor.mean += 1


def change_threshold(run: Runner) -> None:
    run.model.teacher.test_cfg.rcnn.score_thr = 0.5


def change_annotations(run: Runner) -> None:
    """As if the dataset had read a file whose labels were corrected in place."""
    dataset = run.val_dataloader.dataset
    dataset.data_list[0]["instances"][0]["bbox_label"] += 1


def change_evaluator(run: Runner) -> None:
    run.val_loop.evaluator.metrics[0]._coco_api.dataset["annotations"][0]["category_id"] += 1


def break_file(run: Runner) -> None:
    kept(run).write_text('{"metrics"')


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (change_weights, r"expected teacher_sha256 \w{64}, found \w{64}"),
        (change_images, r"expected dataset_sha256 \w{64}, found \w{64}"),
        (change_annotations, r"expected dataset_sha256 \w{64}, found \w{64}"),
        (change_input, r"expected input_sha256 \w{64}, found \w{64}"),
        (change_threshold, r"expected input_sha256 \w{64}, found \w{64}"),
        (change_evaluator, r"expected evaluator_sha256 \w{64}, found \w{64}"),
        (break_file, "expected a file of metrics, found JSONDecodeError"),
    ],
)
def test_metrics_of_something_else_do_not_count(run, caplog, change, why):
    TeacherAccuracyHook().before_train(run)
    change(run)
    logs = told(run, caplog)
    with passes_of(run.model.teacher) as passes:
        TeacherAccuracyHook().before_train(run)
        assert len(passes) == 2
        TeacherAccuracyHook().before_train(run)  # and is written anew
        assert len(passes) == 2
    warnings = [r.getMessage() for r in logs.records if "evaluated again" in r.getMessage()]
    assert len(warnings) == 1
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(warnings[0])


def test_bad_teacher_stops_the_run_with_one_message(make):
    run = make("work", asked(floor=0.9))
    with pytest.raises(SystemExit) as stopped:
        common.run(run.train)
    message = str(stopped.value)
    value = json.loads(kept(run).read_text())["metrics"][METRIC]
    assert message.startswith(
        f"error (TeacherAccuracyError): the teacher was evaluated before training: expected "
        f"{METRIC} >= 0.9, found {value:.4f}. Likely causes: wrong weights (teacher_ckpt is "
    )
    assert run.cfg.model.teacher_ckpt in message and "Traceback" not in message
    # Before anything else: no pre-pass, no iteration.
    assert not (Path(run.work_dir) / "class_centers.safetensors").exists()
    assert run.iter == 0 and not run.watch.losses


def test_floor_itself_is_reached_and_nan_is_not(run):
    TeacherAccuracyHook().before_train(run)
    content = json.loads(kept(run).read_text())
    for value, floor, stops in ((0.5, 0.5, False), (0.5, 0.51, True), (float("nan"), 0, True)):
        content["metrics"][METRIC] = value
        kept(run).write_text(json.dumps(content))
        if stops:
            with pytest.raises(TeacherAccuracyError, match=f">= {floor}, found {value:.4f}"):
                TeacherAccuracyHook(floor).before_train(run)
        else:
            TeacherAccuracyHook(floor).before_train(run)


def test_teacher_that_detects_nothing_is_below_every_floor(run, caplog):
    TeacherAccuracyHook().before_train(run)
    logs = told(run, caplog)
    assert "the teacher finds nothing" not in logs.text
    kept(run).unlink()
    run.model.teacher.roi_head.test_cfg.score_thr = 1.0
    TeacherAccuracyHook().before_train(run)
    assert "the teacher finds nothing on the validation data" in logs.text
    assert f"wrong weights (teacher_ckpt is {run.cfg.model.teacher_ckpt})" in logs.text
    with pytest.raises(TeacherAccuracyError, match="found nothing, as it detects nothing"):
        TeacherAccuracyHook(0.0).before_train(run)


def test_metric_that_does_not_exist_is_an_error(run):
    with pytest.raises(ValueError, match=r"no 'bbox_mAP' among .*'coco/bbox_mAP', 'coco/"):
        TeacherAccuracyHook(0.1, metric="bbox_mAP").before_train(run)


def test_a_run_without_validation_is_an_error(run):
    run._val_loop = None
    with pytest.raises(ValueError, match=r"val_dataloader, val_evaluator and val_cfg.* has none"):
        TeacherAccuracyHook().before_train(run)


# In a real run


def test_training_is_the_one_without_the_hook(make):
    """Also where validation keeps its workers, which draw a random number when they start."""
    options = {
        "train_cfg.max_epochs": 2,
        "train_cfg.val_interval": 1,
        "train_dataloader.dataset.indices": 4,
        "val_dataloader.num_workers": 1,
        "val_dataloader.persistent_workers": True,
    }
    plain = make("plain", reseed=False, **options)
    plain.train()
    run = make("work", asked(floor=-1.0), reseed=False, **options)
    run.train()
    state = plain.model.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in run.model.state_dict().items())
    # Validation is still that of the student.
    own, other = (r.message_hub.get_scalar(f"val/{METRIC}").data[0] for r in (run, plain))
    assert list(own) == list(other) and len(own) == 2


def test_resumed_run_does_not_ask(make, train_until):
    epochs = {"train_cfg.max_epochs": 2, "train_dataloader.dataset.indices": 4}
    killed = make("work", asked(), **epochs)
    train_until(killed, 1)
    kept(killed).unlink()
    resumed = make("work", asked(floor=0.9), resume=True, **epochs)
    with passes_of(resumed.model.teacher) as passes:
        resumed.train()
    assert resumed.iter == 2 and not passes and not kept(resumed).exists()


def test_teacher_without_masks_is_evaluated_by_its_boxes(run, caplog):
    (metric,) = run.val_loop.evaluator.metrics
    metric.metrics = ["bbox", "segm"]  # as a Mask R-CNN student has it
    logs = told(run, caplog)
    TeacherAccuracyHook(-1.0).before_train(run)
    assert "the teacher predicts no masks, so it is evaluated by bbox" in logs.text
    assert METRIC in json.loads(kept(run).read_text())["metrics"]
    # The student's own evaluator is as it was.
    assert run.val_loop.evaluator.metrics == [metric]
    assert metric.metrics == ["bbox", "segm"] and metric.results == []


def test_none_removes_the_hook_of_a_recipe(tmp_path):
    """MMEngine knows None for its own default hooks alone, and stops at others."""
    config = tmp_path / "own.py"
    config.write_text(
        f"_base_ = {str(ROOT / 'configs/digits/review_nd_kd.py')!r}\n"
        f"work_dir = {str(tmp_path / 'work')!r}\n"
        "default_hooks = dict(timer=None, student_export=None, finite_loss=None)\n"
    )
    parser = common.make_parser("test", "", "")
    common.add_config_options(parser)
    parsed = parser.parse_args([str(config)])
    hooks = common.load_config(parsed).default_hooks
    assert not {"student_export", "finite_loss"} & hooks.keys()
    assert hooks.timer is None  # without the entry, MMEngine adds its own
