"""benchmarks/coco_table.sh on a stub of COCO: 40 small images, recipes with narrow backbones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small import ROOT, build
from small_coco import write_split

from kd_det.errors import InvalidInputError
from kd_det.recipes import load_recipe

PAIR = "frcnn_r101_r18"
# Channels of a backbone's stages.
NARROW = {"architecture": [8, 16, 32, 64], "teacher": [32, 64, 128, 256]}


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("coco")
    write_split(root, "train2017", 32)
    write_split(root, "val2017", 8)
    return root


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What makes the recipe short and small."""
    teacher = tmp_path_factory.mktemp("teacher") / "teacher.pth"
    found = {
        "model.teacher_ckpt": teacher,
        "model.architecture.backbone.init_cfg": None,
        "default_hooks.teacher_accuracy.floor": None,  # the teacher is random
        "train_cfg.max_epochs": 1,
        "train_dataloader.batch_size": 8,
        "train_dataloader.dataset.pipeline.2.scale": "[(96,64),(96,72)]",
    }
    for part in ("val", "test"):
        found[f"{part}_dataloader.dataset.pipeline.1.scale"] = "(96,72)"
    for part in ("train", "val", "test"):
        found[f"{part}_dataloader.num_workers"] = 0
        found[f"{part}_dataloader.persistent_workers"] = False
    for who, channels in NARROW.items():
        found[f"model.{who}.backbone.base_channels"] = 8
        found[f"model.{who}.backbone.stem_channels"] = 8
        found[f"model.{who}.neck.in_channels"] = str(channels).replace(" ", "")
        found[f"model.{who}.train_cfg.rcnn.sampler.num"] = 32
        # As they are initialised, all classes are below the published threshold.
        found[f"model.{who}.test_cfg.rcnn.score_thr"] = 0.001
        found[f"model.{who}.test_cfg.rpn.max_per_img"] = 20
    cfg = load_recipe(ROOT / "configs" / f"{PAIR}.py")
    narrow = cfg.model.teacher
    narrow.backbone.update(base_channels=8, stem_channels=8)
    narrow.neck.in_channels = NARROW["teacher"]
    torch.save({"state_dict": build(narrow).state_dict()}, teacher)
    return ["--cfg-options", *(f"{key}={value}" for key, value in found.items())]


def arguments(coco: Path, root: Path, *more: object) -> list[str]:
    return [*map(str, ("--data", coco, "--root", root, "--pairs", PAIR, *more))]


def test_from_a_folder_of_coco_to_the_table(coco, options, tmp_path, run, capsys):
    given = arguments(coco, tmp_path, "--methods", "plain", "review_nd")
    done = subprocess.run(
        ["bash", str(ROOT / "benchmarks" / "coco_table.sh"), *given, *options],
        env={**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    table = (tmp_path / "table.md").read_text()
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| R101")]
    assert [row[1] for row in rows] == ["teacher", "alone", "ReviewKD++"]
    assert all(float(row[3]) >= 0 for row in rows)
    assert "arXiv 2305.17007" in table and table in done.stdout

    # The same command has nothing to do.
    weights = tmp_path / f"{PAIR}_review_nd" / "epoch_1.pth"
    before = weights.stat().st_mtime_ns
    run("coco_table", *given, *options)
    assert capsys.readouterr().out.count("done already") == 3
    assert weights.stat().st_mtime_ns == before
    assert (tmp_path / "table.md").read_text() == table


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder of downloads."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


def test_weights_are_named_and_not_downloaded(coco, hub, offline, tmp_path, run):
    with pytest.raises(InvalidInputError) as caught:
        run("coco_table", *arguments(coco, tmp_path, "--methods", "plain", "review"))
    student, teacher = str(caught.value).splitlines()
    url = load_recipe(ROOT / "configs" / f"{PAIR}.py").model.teacher_ckpt
    name = url.rpartition("/")[2]
    assert f"missing for the teacher of {PAIR}: download {url} as {hub / name}, or" in teacher
    assert f"missing for the student of {PAIR}: download https://" in student
    assert {path.name for path in tmp_path.iterdir()} == {"configs"}

    hub.mkdir(parents=True)
    (hub / name).touch()
    with pytest.raises(InvalidInputError, match=f"student of {PAIR}") as caught:
        run("coco_table", *arguments(coco, tmp_path, "--methods", "plain", "review"))
    assert "teacher" not in str(caught.value)


def test_a_dry_run_prints_every_step_and_what_is_missing(hub, tmp_path, run, capsys):
    run("coco_table", "--root", tmp_path, "--data", tmp_path / "coco", "--gpus", "8", "--dry-run")
    out = capsys.readouterr().out
    steps = [line for line in out.splitlines() if line.startswith("[")]
    assert [line.split()[0] for line in steps] == [
        f"[{pair}_{step}]"
        for pair in ("frcnn_r101_r18", "frcnn_r101_r50", "frcnn_r50_mv2")
        for step in ("plain", "centers", "kd_nd", "review", "review_nd")
    ]
    launch = "python -m torch.distributed.run --standalone --nproc_per_node=8 -m kd_det "
    assert all(f": {launch}" in line and line.endswith("--launcher pytorch") for line in steps)
    assert f"missing in {tmp_path / 'coco'}: annotations/instances_train2017.json, " in out
    assert out.count("missing for the teacher of ") == 2
    assert out.count("missing for the student of ") == 3


def test_students_differ_in_nothing_but_the_teacher(benchmark, coco, tmp_path):
    setting = benchmark("coco_table").Setting(tmp_path, coco, 1, 0, {})
    for pair in ("frcnn_r101_r18", "frcnn_r50_mv2"):
        alone, taught = (setting.config(pair, method) for method in ("plain", "review_nd"))
        assert alone.model == taught.model.architecture
        for key in ("train_dataloader", "optim_wrapper", "param_scheduler", "train_cfg"):
            assert alone[key] == taught[key]
        unused = "find_unused_parameters"
        assert alone.get(unused) == taught.get(unused)


def test_published_figures_stand_beside_ones_own(benchmark, tmp_path, monkeypatch):
    module = benchmark("coco_table")
    file = tmp_path / "published.csv"
    rows = [
        f"{PAIR},teacher,40.0,a page",
        f"{PAIR},plain,30.0,a page",
        f"{PAIR},review_nd,34.0,a paper",
        f"{PAIR},kd_nd,,a paper",
    ]
    file.write_text("pair,method,mAP,source\n" + "\n".join(rows) + "\n")
    monkeypatch.setattr(module, "PUBLISHED", file)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "teacher_metrics.json").write_text('{"metrics": {"coco/bbox_mAP": 0.38}}')
    step = module.Step("run", [], folder)
    runs = {(PAIR, method): step for method in ("plain", "kd_nd", "review_nd")}
    results = {(PAIR, "plain"): 0.28, (PAIR, "review_nd"): 0.33, (PAIR, "kd_nd"): 0.29}
    text = module.report([PAIR], ["plain", "kd_nd", "review", "review_nd"], results, runs)
    lines = [line for line in text.splitlines() if line.startswith("| R101")]
    assert lines == [
        "| R101 teaches R18 | teacher | 40.0 | 38.0 | -2.0 |  |  |",
        "| R101 teaches R18 | alone | 30.0 | 28.0 | -2.0 |  |  |",
        "| R101 teaches R18 | KD++ |  | 29.0 |  |  | 10% |",
        "| R101 teaches R18 | ReviewKD |  |  |  |  |  |",
        "| R101 teaches R18 | ReviewKD++ | 34.0 | 33.0 | -1.0 | 40% | 50% |",
    ]
    assert "teacher, alone in a page; ReviewKD++, KD++ in a paper" in text
