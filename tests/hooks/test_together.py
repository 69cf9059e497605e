"""All hooks in one run: in two processes, and with MMRazor's own algorithm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mmengine.config import Config
from small import digits_config, runner, start_two

from kd_det import TeacherAccuracyHook

HOOKS = [
    dict(type="kd_det.TeacherAccuracyHook", floor=-1.0),
    dict(type="kd_det.LossBalanceHook", share=0.3),
    dict(type="kd_det.LossWeightHook", schedules=dict(loss_review=dict(warmup=4, by_epoch=False))),
]
BALANCED = ("loss_review", "loss_nd", "loss_kd")


@pytest.fixture(scope="module")
def config(digits: Path, teacher_ckpt: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("together")
    cfg = digits_config("review_nd_kd", digits, folder / "work")
    cfg.model.teacher_ckpt = str(teacher_ckpt)
    cfg.train_dataloader.dataset.indices = 8
    cfg.train_dataloader.batch_size = 2
    cfg.train_cfg.val_interval = 99
    cfg.find_unused_parameters = False
    cfg.custom_imports = dict(imports=["hook_report"], allow_failed_imports=False)
    cfg.custom_hooks += [*HOOKS, dict(type="HookReport")]
    cfg.dump(folder / "config.py")
    return folder / "config.py"


@pytest.fixture(scope="module")
def work_dir(config: Path) -> Path:
    """Work directory of one epoch with two processes."""
    done = start_two(config, config.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    return config.parent / "work"


@pytest.fixture(scope="module")
def reports(work_dir: Path) -> list[dict]:
    return [json.loads((work_dir / f"hooks_{rank}.json").read_text()) for rank in (0, 1)]


def test_both_processes_hold_the_same_scales(reports):
    first, second = reports
    assert first["wrapper"] == "MMDistributedDataParallel"
    # Each has images, and so norms, of its own.
    assert first["losses"] != second["losses"]
    assert first["scalars"] == second["scalars"]
    for name in BALANCED:
        scales = first["scalars"][f"train/scale/{name}"]
        assert len(set(scales)) == 2 and all(scale > 0 for scale in scales)
    assert first["scalars"]["train/weight/loss_review"] == [0.25, 0.5]


def test_two_processes_find_the_teacher_as_good_as_one_does(config, work_dir, reports, tmp_path):
    together = json.loads((work_dir / "teacher_metrics.json").read_text())
    cfg = Config.fromfile(config)
    cfg.custom_hooks, cfg.custom_imports = [], None
    cfg.work_dir = str(tmp_path / "alone")
    alone = runner(cfg)
    assert alone.train_loop.iter == 0
    TeacherAccuracyHook().before_train(alone)
    assert json.loads((tmp_path / "alone" / "teacher_metrics.json").read_text()) == together
    for name, value in together["metrics"].items():
        assert reports[0]["scalars"][f"teacher/{name}"] == [value]


def test_all_processes_stop_for_a_bad_teacher(config, work_dir):
    # The metrics are known by now; both processes have them from the first one.
    done = start_two(config, config.parent, "--cfg-options", "custom_hooks.2.floor=0.9")
    assert done.returncode != 0
    output = done.stdout + done.stderr
    assert output.count("error (TeacherAccuracyError): the teacher was evaluated") == 2
    assert "Evaluating the teacher" not in output and "Epoch(train)" not in output


def test_hooks_work_with_the_algorithm_of_mmrazor(make):
    run = make(
        "work",
        *HOOKS,
        **{
            "model.type": "mmrazor.SingleTeacherDistill",
            "model.distiller._scope_": "mmrazor",
            "train_dataloader.dataset.indices": 4,
        },
    )
    run.train()
    assert type(run.model).__name__ == "SingleTeacherDistill"
    scalars = {key: buffer.current() for key, buffer in run.message_hub.log_scalars.items()}
    assert scalars["train/weight/loss_review"] == 0.25
    for name in BALANCED:
        product = scalars[f"train/scale/{name}"] * scalars[f"train/share/{name}"]
        assert product == pytest.approx(0.3)
    assert scalars["teacher/coco/bbox_mAP"] >= 0


@pytest.mark.parametrize(
    "hook",
    [
        "ClassCenterHook",
        "EmbeddingMonitorHook",
        "ExactResumeHook",
        "FiniteLossHook",
        "StudentExportHook",
        "TeacherAccuracyHook",
    ],
)
def test_a_hook_that_is_named_twice_is_refused(make, hook):
    twice = [dict(type=f"kd_det.{hook}")] * 2
    with pytest.raises(ValueError, match=f"expected one {hook} in custom_hooks and default_hooks"):
        make("twice", *twice).train()
