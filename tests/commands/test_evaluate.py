"""kd-det test: student and teacher, each without the other, by the config's metric."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from small import ROOT, runner

KEPT_PER_IMAGE = 3


@pytest.fixture(scope="module")
def checkpoint(trained) -> Path:
    """The checkpoint of a distillation run."""
    return trained / "epoch_1.pth"


@pytest.fixture
def easy(config_file: Callable[..., Path], checkpoint: Path, digits: Path, tmp_path: Path) -> Path:
    """A config whose annotations are the student's own best boxes: metrics are not all zero."""
    thresholds = {
        f"model.{side}.test_cfg.rcnn.score_thr": 0.0 for side in ("architecture", "teacher")
    }
    cfg = Config.fromfile(config_file(**thresholds))
    cfg.test_evaluator.outfile_prefix = str(tmp_path / "found")
    cfg.load_from = str(checkpoint)
    runner(cfg).test()
    answers = json.loads((tmp_path / "found.bbox.json").read_text())
    annotations = json.loads((digits / "annotations" / "instances_val.json").read_text())
    best = []
    for image in annotations["images"]:
        boxes = [a for a in answers if a["image_id"] == image["id"]]
        best += sorted(boxes, key=lambda a: -a["score"])[:KEPT_PER_IMAGE]
    annotations["annotations"] = [
        dict(box, id=i, area=box["bbox"][2] * box["bbox"][3], iscrowd=0)
        for i, box in enumerate(best, start=1)
    ]
    file = tmp_path / "instances.json"
    file.write_text(json.dumps(annotations))
    data = {"test_dataloader.dataset.ann_file": str(file), "test_evaluator.ann_file": str(file)}
    return config_file(**thresholds, **data)


def reference(config: Path, checkpoint: Path, side: str | None = None) -> dict[str, float]:
    """Metrics by MMEngine's own Runner: of the whole model, or of one side built alone."""
    cfg = Config.fromfile(config)
    if side is not None:
        cfg.model = cfg.model[side]
        cfg.custom_hooks = []
    cfg.load_from = str(checkpoint)
    return runner(cfg).test()


def test_student_and_teacher_score_as_with_mmengine(
    tool, easy, checkpoint, teacher_ckpt, tmp_path, capsys
):
    """Of the weights that are named, whatever the config says for training."""
    cfg = Config.fromfile(easy)
    cfg.update(load_from=str(teacher_ckpt), resume=True)
    cfg.dump(tmp_path / "more.py")
    out = tmp_path / "both.json"
    tool("test", tmp_path / "more.py", checkpoint, "--model", "both", "--out", out)
    both = json.loads(out.read_text())
    assert both["student"] == reference(easy, checkpoint)
    assert both["teacher"] == reference(easy, teacher_ckpt, "teacher")
    assert both["student"]["coco/bbox_mAP"] > 0.1 > both["teacher"]["coco/bbox_mAP"]
    printed = capsys.readouterr().out
    assert json.dumps(both, indent=2) in printed and f"Metrics written to {out}" in printed


def test_the_teacher_needs_no_student(tool, config_file, tmp_path):
    tool("test", config_file(), "--model", "teacher", "--out", tmp_path / "teacher.json")
    assert "coco/bbox_mAP" in json.loads((tmp_path / "teacher.json").read_text())


def test_what_is_missing_or_does_not_fit_is_one_sentence(
    refusal, config_file, checkpoint, teacher_ckpt, tmp_path
):
    no_teacher = config_file(**{"model.teacher_ckpt": str(tmp_path / "no.pth")})
    message = f"the teacher's checkpoint does not exist: {tmp_path}/no.pth; "
    assert message in refusal("test", no_teacher, "--model", "teacher")
    no_data = config_file(**{"test_dataloader.dataset.data_root": str(tmp_path / "set")})
    message = f"the test annotation file does not exist: {tmp_path}/set/"
    assert message in refusal("test", no_data, checkpoint)

    cfg = Config.fromfile(config_file())
    # As MMRazor's registry allows; it is built, and does not fit this checkpoint.
    cfg.model.teacher = dict(cfg_path="mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py")
    cfg.dump(tmp_path / "named.py")
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    del state["architecture.neck.fpn_convs.3.conv.weight"]
    torch.save({"state_dict": state}, tmp_path / "incomplete.pth")
    config, plain = config_file(), config_file("plain")
    classifier = ROOT / "configs" / "cls" / "digits" / "plain.py"
    for arguments, message in (
        ([config], "checkpoint to evaluate is missing on the command line"),
        ([config, tmp_path / "no.pth"], f"student's checkpoint {tmp_path}/no.pth does not exist"),
        ([plain, checkpoint, "--model", "teacher"], "has no model.teacher; use --model student"),
        (
            [config, tmp_path / "incomplete.pth"],
            "FasterRCNN of 150 weights. 1 missing: neck.fpn_convs.3.conv.weight.",
        ),
        (
            [config, teacher_ckpt],
            "backbone.conv1.weight (expected [8, 3, 7, 7], found [16, 3, 7, 7])",
        ),
        (
            [tmp_path / "named.py", "--model", "teacher"],
            f"the teacher's checkpoint {teacher_ckpt} does not fit the teacher",
        ),
        (
            [config, checkpoint, "--model", "both", "--out", "x.pkl"],
            "x.pkl can hold one model's predictions; choose by --model",
        ),
        ([classifier, checkpoint, "--tta"], "--tta needs tta_model"),
    ):
        assert message in refusal("test", *arguments)


def test_predictions_and_pictures_as_mmdet_has_them(tool, config_file, checkpoint, tmp_path):
    """Of a student, whose teacher may be gone."""
    out, shown = tmp_path / "new" / "found.pkl", tmp_path / "shown"
    options = ["--out", out, "--show-dir", shown, "--work-dir", tmp_path / "work"]
    changes = {"model.architecture.test_cfg.rcnn.score_thr": 0.0, "model.teacher_ckpt": "nowhere"}
    tool("test", config_file(**changes), checkpoint, *options)
    found = pickle.loads(out.read_bytes())
    assert len(found) == 8
    assert {"bboxes", "scores", "labels"} <= found[0]["pred_instances"].keys()
    assert "gt_instances" not in found[0]
    assert len(list(shown.rglob("*.jpg"))) == 8


def test_augmentation_while_testing(tool, config_file, checkpoint, tmp_path, monkeypatch):
    from mmdet.models import DetTTAModel

    seen = []
    merge = DetTTAModel.merge_preds

    def watched(model: DetTTAModel, samples: list) -> list:
        seen.extend(len(each) for each in samples)
        return merge(model, samples)

    monkeypatch.setattr(DetTTAModel, "merge_preds", watched)
    config = config_file(**{"model.architecture.test_cfg.rcnn.score_thr": 0.0})
    tool("test", config, checkpoint, "--tta", "--work-dir", tmp_path / "work")
    assert seen == [2] * 8  # each image as it is and turned over
