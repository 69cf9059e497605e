"""The page as a whole, on small runs."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from small import runner
from small_cls import CLS

from kd_det.recipes import load_named
from kd_det.report.embedding_sections import embeddings
from kd_det.report.html_report import compare, write_report
from kd_det.report.page import Section, render
from kd_det.report.pictures import Box, Picture


@pytest.fixture(scope="module")
def comparison(trained_runs):
    return compare(list(trained_runs.values()))


@pytest.fixture(scope="module")
def page(comparison, tmp_path_factory) -> Path:
    """A whole report; models of two iterations find little, so some detections are put in."""
    boxes, classes = comparison.validation.objects(0)
    scores, images = np.full(len(boxes), 0.9), np.zeros(len(boxes), int)
    added = dict(boxes=boxes, scores=scores, classes=classes, images=images)
    found = comparison.evaluations
    evaluations = {**found, "distilled": replace(found["distilled"], **added)}
    out = tmp_path_factory.mktemp("report") / "report.html"
    write_report(replace(comparison, evaluations=evaluations), out, images=2)
    return out


def test_class_means_are_those_that_a_student_learnt_from(comparison, tmp_path):
    """Also where another method, without class centers, is better."""
    learnt = comparison.best("distilled")
    cfg = Config({**learnt.cfg.to_dict(), "custom_hooks": []})
    better = replace(learnt, name="better", folder=tmp_path, cfg=cfg)
    found = comparison.evaluations
    evaluations = {**found, "better": replace(found[learnt.name], metrics={"coco/bbox_mAP": 0.9})}
    both = replace(comparison, runs=[*comparison.runs, better], evaluations=evaluations)
    section = embeddings(both)
    assert section.table is not None
    assert [row[0] for row in section.table.rows] == ["teacher", "plain", "distilled", "better"]
    assert "those that distilled learnt from" in section.text


def titles(text: str) -> list[str]:
    return re.findall(r"<h2[^>]*>\s*(.*?)\s*<", text)


def test_all_parts_are_there_and_nothing_is_loaded(page):
    text = page.read_text()
    links = re.findall(r'\b(?:src|href|srcset|data)="([^"]+)"', text)
    assert titles(text) == [
        "Summary",
        "Learning curves",
        "Distillation losses",
        "Embeddings in training",
        "AP by class",
        "Norm and direction of embeddings",
        "Similarity of class centers",
        "Pictures",
    ]
    assert 'class="left-out"' not in text and "<script" not in text and "@import" not in text
    assert all(link.startswith(("data:", "#")) for link in links)
    assert not re.search(r"url\((?!#)", text)


def test_numbers_beside_it_are_those_of_the_evaluation(page, comparison):
    numbers = json.loads(page.with_suffix(".json").read_text())
    assert [run["role"] for run in numbers] == ["teacher", "plain", "distilled"]
    for entry in numbers:
        assert entry["metrics"] == comparison.evaluations[entry["name"]].metrics
        assert entry["flops"] == comparison.costs[entry["name"]].flops
        assert entry["latency_seconds"]["median"] > 0


def test_a_picture_shows_what_is_right(page):
    text = page.read_text()
    assert text.count('class="picture"') in (1, 2)
    for column in ("ground truth", "teacher", "plain", "distilled"):
        assert f"<figcaption>{column}" in text
    assert "distilled, F1 1.00" in text
    assert 'class="right"><rect' in text
    # An image is embedded once, for all columns.
    assert text.count("data:image/jpeg") == text.count('class="picture"')
    assert text.count('<use href="#picture1"/>') == 3


def test_what_is_missing_is_said_in_one_line(trained_runs, tmp_path):
    """A plain run alone; then a distilled one without a plain student."""
    write_report(compare([trained_runs["plain"]]), tmp_path / "plain.html")
    text = html.unescape((tmp_path / "plain.html").read_text())
    assert text.count('class="left-out"') == 5
    assert "No run logged distillation losses, since none was distilled." in text
    assert "no distilled student was given" in text
    assert "Left out: class means are the teacher's, and no teacher was given." in text

    write_report(compare([trained_runs["distilled"]]), tmp_path / "distilled.html")
    text = html.unescape((tmp_path / "distilled.html").read_text()).replace("<wbr>", "")
    assert text.count('class="left-out"') == 2
    assert text.count("no plain student was given") == 2


def test_a_classifier_gets_what_applies(tmp_path):
    cfg = load_named(CLS / "digits" / "kd_nd.py")
    plain = Config.fromfile(CLS / "digits" / "plain.py")
    teacher = Config.fromfile(CLS / "digits" / "teacher.py")
    for name, each in (("teacher", teacher), ("plain", plain), ("distilled", cfg)):
        object.__setattr__(each, "_format_python_code", False)
        each.train_cfg.update(max_epochs=1, val_interval=1)
        each.default_hooks.checkpoint.interval = 1
        each.work_dir = str(tmp_path / name)
        if name == "distilled":
            each.model.teacher_ckpt = str(tmp_path / "teacher" / "epoch_1.pth")
        runner(each).train()
    comparison = compare([tmp_path / name for name in ("teacher", "plain", "distilled")])
    write_report(comparison, tmp_path / "report.html")
    for run in comparison.runs:
        logged = run.scalars["accuracy/top1"][1]
        assert comparison.evaluations[run.name].metrics["accuracy/top1"] == pytest.approx(logged)
    text = html.unescape((tmp_path / "report.html").read_text())
    assert "Left out: boxes are drawn for detectors alone." in text
    assert "An embedding of another size than the teacher's has no cosine" in text
    assert "Accuracy by class" in titles(text)


def test_texts_of_boxes_go_towards_the_middle():
    """A long class name beside the right edge would be cut off there."""
    boxes = [Box(10, 50, 40, 40, "left", None), Box(440, 50, 30, 40, "right", None)]
    picture = Picture("a.jpg", "data:,", 480, 360, {"ground truth": boxes}, {})
    page = render("", [Section("Pictures", "", pictures=[picture])], "")
    assert re.search(r'<text x="13" y="44">left<', page)
    assert re.search(r'<text x="467" text-anchor="end" y="44">right<', page)
