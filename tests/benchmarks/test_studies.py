"""Comparison, weight sweep and search for weights: what runs, and what is written of it."""

from __future__ import annotations

import argparse
import json
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import pytest
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import DefaultScope


@pytest.fixture
def runs(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("_runs")


@pytest.fixture
def data(runs: ModuleType, digits: Path) -> object:
    """An epoch of digits-coco at 64 pixels."""
    return runs.Data(digits, (64, 64), 1, 1)


@pytest.fixture
def study(runs: ModuleType, data: object, tmp_path: Path) -> object:
    return runs.Study(tmp_path, data)


@pytest.fixture
def three_classes(digits: Path, tmp_path: Path) -> Path:
    """The annotations of digits-coco with classes of other names, and only three of them."""
    for split in ("train", "val"):
        data = json.loads((digits / "annotations" / f"instances_{split}.json").read_text())
        data["categories"] = [dict(id=i, name=name) for i, name in ((7, "c"), (2, "b"), (1, "a"))]
        data["annotations"] = [a for a in data["annotations"] if a["category_id"] in (1, 2, 7)]
        file = tmp_path / "annotations" / f"instances_{split}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(data))
    return tmp_path


def test_a_recipe_is_adapted_to_other_data(runs, three_classes):
    cfg = runs.adapted("review_nd_kd", runs.Data(three_classes, (96, 64), 3, 5), seed=4, epochs=3)
    names = cfg.train_dataloader.dataset.metainfo.classes
    with DefaultScope.overwrite_default_scope("mmdet"):
        dataset = DATASETS.build(dict(cfg.train_dataloader.dataset, pipeline=[]))
    # mmdet's labels follow the file, whatever the ids.
    assert {id: names[label] for id, label in dataset.cat2label.items()} == {7: "c", 2: "b", 1: "a"}
    assert cfg.model.architecture.roi_head.bbox_head.num_classes == 3
    assert cfg.model.teacher.roi_head.bbox_head.num_classes == 3
    assert cfg.model.distiller.distill_losses.loss_nd.num_classes == 3
    for part in ("train", "val"):
        file = Path(cfg[f"{part}_dataloader"].dataset.ann_file)
        assert file.name == f"instances_{part}.json" and file.is_file()
        pipeline = cfg[f"{part}_dataloader"].dataset.pipeline
        assert [t.scale for t in pipeline if t.type == "Resize"] == [(96, 64)]
    assert cfg.val_evaluator.ann_file == cfg.val_dataloader.dataset.ann_file
    assert cfg.train_cfg.max_epochs == cfg.param_scheduler[-1].T_max == 3
    assert cfg.randomness.seed == 4


def test_other_annotations_make_other_results(runs, three_classes):
    data = runs.Data(three_classes, (64, 64), 1, 1)
    before = runs.adapted("kd", data, 0, 1)
    file = data.annotation_file("train")
    file.write_text(file.read_text() + " ")
    assert runs.adapted("kd", data, 0, 1).to_dict() != before.to_dict()


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_stopped_study_ends_its_runs(runs, study, tmp_path, monkeypatch, request, number, raised):
    script = tmp_path / "wait.py"
    script.write_text("import time; time.sleep(600)")
    steps = [runs.Step(f"run{i}", [str(script)], tmp_path / f"run{i}") for i in range(3)]
    monkeypatch.setattr(study.teacher, "run", lambda: None)
    # Tests that were started in the background ignore what Ctrl-C sends.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    threading.Timer(2, os.kill, (os.getpid(), number)).start()
    with pytest.raises(raised):
        study.run(steps, jobs=2)
    assert all(step._process.poll() is not None for step in steps[:2])
    assert steps[2]._process is None


def test_runs_of_a_study_share_teacher_and_centers(study, tmp_path):
    plain, kd, nd = (study.student(method, 3) for method in ("plain", "kd", "kd_nd"))
    assert plain.inputs == []
    assert kd.inputs == [study.teacher]
    assert nd.inputs == [study.teacher, study.centers]
    cfg = Config.fromfile(nd.config)
    assert cfg.model.teacher_ckpt == str(tmp_path / "teacher" / "epoch_1.pth")
    assert cfg.custom_hooks[0].file == str(tmp_path / "centers" / "class_centers.safetensors")
    assert len({step.folder for step in (plain, kd, nd, study.student("kd", 4))}) == 4


def test_weights_of_all_losses_on_the_pyramid_are_scaled(benchmark, runs, data):
    sweep = benchmark("weight_sweep")
    for recipe, scaled in (("cwd_nd_kd", 5), ("review_nd_kd", 1), ("robust", 1)):
        cfg = runs.adapted(recipe, data, 0, 1)
        before = weights_of(cfg)
        sweep.scale_feature_losses(cfg, Fraction(1, 4))
        after = weights_of(cfg)
        changed = {k for k in before if after[k] == before[k] / 4}
        assert len(changed) == scaled
        assert all(after[k] == before[k] for k in before.keys() - changed)
    with pytest.raises(ValueError, match=r"found \['loss_kd', 'loss_nd'\]"):
        sweep.scale_feature_losses(runs.adapted("kd_nd", data, 0, 1), Fraction(2))


def weights_of(cfg: Config) -> dict[str, float]:
    return {k: v.get("loss_weight", 1) for k, v in cfg.model.distiller.distill_losses.items()}


def test_a_factor_of_one_is_the_run_of_the_comparison(benchmark, study):
    """Or each would delete what the other has trained."""
    sweep, compare = benchmark("weight_sweep"), benchmark("compare")
    swept = sweep.student(study, "cwd", Fraction(1), 0)
    assert swept.key == compare.student(study, "cwd", 0, init_student=False).key
    assert sweep.student(study, "cwd", Fraction(2), 0).folder != swept.folder


def test_another_split_can_judge(runs, data):
    cfg = runs.adapted("kd", replace(data, judge="train"), 0, 1)
    assert cfg.val_evaluator.ann_file == cfg.test_dataloader.dataset.ann_file
    assert Path(cfg.val_evaluator.ann_file).name == "instances_train.json"
    assert cfg.val_dataloader.dataset.data_prefix.img == "train/"
    message = r"annotations/instances_test.json, train/ and test/"
    with pytest.raises(FileNotFoundError, match=message):
        runs.adapted("kd", replace(data, judge="test"), 0, 1)


def test_a_method_that_inherits_anyway_is_not_run_twice(benchmark, study):
    compare = benchmark("compare")
    assert compare.student(study, "robust", 0, init_student=True).name == "robust_e1_s0"
    kd = compare.student(study, "kd", 0, init_student=True)
    assert kd.name == "kd_inherit_e1_s0"
    assert Config.fromfile(kd.config).model.init_student_from_teacher == ["rpn_head", "roi_head"]


def test_the_search_judges_by_held_out_training_images(benchmark, data, digits, tmp_path):
    held_out = benchmark("search_weights").hold_out(data, tmp_path)
    parts = [json.loads(held_out.annotation_file(part).read_text()) for part in ("train", "val")]
    ids = [{image["id"] for image in part["images"]} for part in parts]
    everything = json.loads(data.annotation_file("train").read_text())
    assert ids[0].isdisjoint(ids[1]) and len(ids[1]) == 5  # of 24
    assert ids[0] | ids[1] == {image["id"] for image in everything["images"]}
    for part, own in zip(parts, ids):
        assert {a["image_id"] for a in part["annotations"]} <= own
    assert sum(len(p["annotations"]) for p in parts) == len(everything["annotations"])
    image = parts[1]["images"][0]["file_name"]
    assert (held_out.root / "val" / image).read_bytes() == (digits / "train" / image).read_bytes()


def test_levels_of_one_kind_share_their_weight_in_the_search(benchmark, runs, data):
    search = benchmark("search_weights")
    assert search.default_weights("cwd_nd_kd", data).keys() == {"loss_cwd", "loss_nd", "loss_kd"}
    cfg = runs.adapted("cwd_nd_kd", data, 0, 1)
    search.set_weights(cfg, dict(loss_cwd=3.0, loss_nd=2.0, loss_kd=0.5))
    weights = weights_of(cfg)
    assert weights.pop("loss_nd") == 2.0 and weights.pop("loss_kd") == 0.5
    assert set(weights.values()) == {3.0} and len(weights) == 5


def test_table_tells_mean_spread_and_share_of_the_gap(benchmark, runs):
    compare = benchmark("compare")
    methods = ["kd", "kd_nd", "cwd", "pkd"]
    args = argparse.Namespace(methods=methods, seeds=[0, 1], init_student=False)
    results = {("plain", 0): 0.1, ("plain", 1): 0.3, ("kd", 0): 0.2, ("kd", 1): 0.3}
    results |= {("kd_nd", 1): 0.28, ("cwd", 0): 0.5}
    data = runs.Data(Path("x/cells"), (64, 64), 1, 1)
    lines = compare.report(args, data, 0.6, results, []).splitlines()
    assert "| plain | 0.200 | 0.141 |  |  | 0.100 0.300 |" in lines
    assert "| kd | 0.250 | 0.071 | 12% |  | 0.200 0.300 |" in lines
    assert "| kd_nd | 0.280 |  | 20% | -0.020 | 0.280 |" in lines  # to seed 1 alone
    assert "| cwd | 0.500 |  | 75% |  | 0.500 |" in lines
    assert not any(line.startswith("| pkd") for line in lines)


def test_compares_from_nothing_and_goes_on_where_it_was(run, digits, tmp_path, capsys):
    out = tmp_path / "table.md"
    options = ["--data", digits, "--scale", 64, 64, "--epochs", 1, "--teacher-epochs", 1]
    options += ["--root", tmp_path / "runs", "--methods", "kd", "--seeds", 0, "--out", out]
    options += ["--jobs", 2]  # one thread each, as here
    run("compare", *options)
    table = out.read_text()
    assert "| plain | 0." in table and "| kd | 0." in table
    commit = json.loads((tmp_path / "runs" / "kd_e1_s0" / "step.json").read_text())["commit"]
    assert f"Commit {commit}; " in table
    capsys.readouterr()
    run("compare", *options)
    assert capsys.readouterr().out.count("done already") == 3  # teacher, two students
    assert out.read_text() == table
