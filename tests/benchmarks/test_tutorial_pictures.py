"""The tutorial's pictures, of small runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from kd_det.report.html_report import compare


def test_pictures_show_boxes_and_no_photograph(benchmark, trained_runs, digits):
    made = benchmark("tutorial_pictures")
    comparison = compare(list(trained_runs.values()))
    # Models of two iterations find nothing: the distilled one is given what is right.
    boxes, classes = comparison.validation.objects(0)
    found = dict(boxes=boxes, classes=classes, scores=np.ones(len(boxes)))
    found["images"] = np.zeros(len(boxes), int)
    distilled = comparison.best("distilled").name
    evaluations = dict(comparison.evaluations)
    evaluations[distilled] = replace(evaluations[distilled], **found)
    one = made.Set("digits", replace(comparison, evaluations=evaluations), (0.02, 0.01))

    pictures = {name: data.decode() for name, data in made.draw([one, one]).items()}
    assert set(pictures) == {"classes", "curves", "latency", "detections"}
    for text in pictures.values():
        tags = {each.tag.split("}")[1] for each in ElementTree.fromstring(text).iter()}
        assert "image" not in tags
    # Those of the truth, and as many that are right, twice.
    for right in (None, True):
        assert pictures["detections"].count(f"stroke: {made.BOX_COLORS[right]}") == 2 * len(boxes)
    assert made.table([one]).splitlines()[2].endswith("| 20.0 | 10.0 |")


def test_boxes_of_each_class_are_those_of_the_file(benchmark, trained_runs, digits):
    made = benchmark("tutorial_pictures")
    cfg = compare(list(trained_runs.values())).validation.cfg
    counted = made.count_boxes(cfg.train_dataloader.dataset)
    (path,) = Path(digits, "annotations").glob("*train*.json")
    assert sum(counted.values()) == len(json.loads(path.read_text())["annotations"])
    assert list(counted) == list(map(str, range(10)))
