"""One pass over the validation data, kept until weights or data change."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from small import runner

from kd_det.report.embeddings import embed
from kd_det.report.evaluation import EMBEDDED_IMAGES, LOWEST_SCORE, Evaluation, evaluate
from kd_det.report.runs import Run, read_runs
from kd_det.report.validation import Validation


@pytest.fixture
def run(trained_runs, tmp_path) -> Run:
    """The teacher, in a folder of its own."""
    kept = shutil.ignore_patterns("report_*")
    folder = shutil.copytree(trained_runs["teacher"], tmp_path / "teacher", ignore=kept)
    return read_runs([Path(folder)])[0]


@pytest.fixture
def validation(run) -> Validation:
    return Validation(run.cfg)


def same(first: Evaluation, second: Evaluation) -> bool:
    arrays = ("boxes", "scores", "classes", "images", "embeddings", "labels")
    return (first.metrics, first.by_class) == (second.metrics, second.by_class) and all(
        np.array_equal(getattr(first, name), getattr(second, name)) for name in arrays
    )


def test_metrics_are_those_of_mmengine_and_boxes_those_of_the_model(run, validation):
    found = evaluate(run, validation)
    cfg = Config(run.cfg.to_dict())
    cfg.update(load_from=run.checkpoint, work_dir=str(run.folder / "reference"))
    reference = runner(cfg)
    expected = {k: v for k, v in reference.test().items() if not isinstance(v, str)}
    assert found.metrics == pytest.approx(expected)

    batch = next(iter(validation.loader))
    model = reference.model.eval()
    with torch.no_grad():
        samples = model.test_step(batch)
    for image, sample in enumerate(samples):
        shown = sample.pred_instances[sample.pred_instances.scores >= LOWEST_SCORE]
        boxes, scores, classes = found.detections(image)
        assert np.array_equal(boxes, shown.bboxes.numpy())
        assert np.array_equal(scores, shown.scores.numpy())
        assert np.array_equal(classes, shown.labels.numpy())
    data = model.data_preprocessor(batch, False)
    objects = [validation.objects(image) for image in range(len(samples))]
    expected, labels = embed(model, data, objects)
    assert np.array_equal(found.embeddings[: len(labels)], expected)
    assert np.array_equal(found.labels[: len(labels)], labels)
    assert len(found.labels) == sum(len(validation.objects(i)[1]) for i in range(8))
    assert len(validation.dataset) == 8 <= EMBEDDED_IMAGES


def test_objects_are_in_pixels_of_the_file(run, validation):
    """Annotations of the data set as they are, whatever the pipeline does to the image."""
    boxes, labels = validation.objects(0)
    image = validation.dataset.get_data_info(0)["img_id"]
    annotated = json.loads(Path(run.cfg.val_evaluator.ann_file).read_text())["annotations"]
    x, y, w, h = np.array([a["bbox"] for a in annotated if a["image_id"] == image]).T
    assert np.allclose(boxes, np.stack([x, y, x + w, y + h], 1))
    assert len(labels) == len(boxes) > 0


def test_a_second_call_reads_what_the_first_found(run, validation, monkeypatch):
    first = evaluate(run, validation)
    monkeypatch.setattr(validation, "model", lambda _: pytest.fail("evaluated again"))
    assert same(evaluate(run, validation), first)

    def again() -> None:
        with pytest.raises(pytest.fail.Exception, match="evaluated again"):
            evaluate(run, validation)

    kept = run.folder / "report_plain.safetensors"
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-100])
    again()
    kept.write_bytes(whole)
    # Other weights, under the same name.
    state = torch.load(run.checkpoint, map_location="cpu", weights_only=True)
    state["state_dict"]["neck.fpn_convs.0.conv.bias"] += 1
    torch.save(state, run.checkpoint)
    again()


def test_a_config_without_validation_and_missing_data_are_told(run):
    run.cfg.val_dataloader.dataset.data_root = "/nowhere"
    with pytest.raises(FileNotFoundError, match="the val annotation file does not exist"):
        Validation(run.cfg)
    run.cfg.val_evaluator = None
    with pytest.raises(ValueError, match=r"the config has no val_\*"):
        Validation(run.cfg)
