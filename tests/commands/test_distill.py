"""kd-det distill: one command from two configs, weights and data to a trained student."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from small import IMAGE_SIZE, ROOT

from kd_det.datasets import coco_entries, inspection
from kd_det.datasets.coco import Annotations, read_annotations
from kd_det.datasets.coco_entries import check_entries

PLAIN, TEACHER = (str(ROOT / "configs" / "digits" / f"{name}.py") for name in ("plain", "teacher"))
SMALL = [
    f"{part}_dataloader.{option}"
    for part in ("train", "val", "test")
    for option in (
        "num_workers=0",
        "persistent_workers=False",
        f"dataset.pipeline.2.scale=({IMAGE_SIZE},{IMAGE_SIZE})",
    )
]


@pytest.fixture
def arguments(digits, teacher_ckpt, tmp_path):
    """Of a short run, with further ones."""

    def together(*more: object) -> list[object]:
        options = [*SMALL, "train_dataloader.dataset.indices=8"]
        given = [PLAIN, TEACHER, "--teacher-ckpt", teacher_ckpt, "--data", digits]
        length = ["--work-dir", tmp_path / "work", "--epochs", 1, "--batch-size", 4]
        return [*given, *length, *more, "--cfg-options", *options]

    return together


def test_trains_and_says_how_to_do_it_again(tool, arguments, tmp_path, capsys):
    tool("distill", *arguments("--method", "robust_nd_kd"))
    output = capsys.readouterr().out
    path = tmp_path / "work" / "config" / "distill.py"
    assert f"kd-det train {path}\n" in output
    assert "Decided, for the method robust_nd_kd:" in output
    assert "Epoch(train) [1][2/2]" in output and "coco/bbox_mAP:" in output
    # The last line: what came out, where it lies, what to do next.
    last = output.strip().splitlines()[-1]
    assert re.search(
        r"Training is done: coco/bbox_mAP -?\d\.\d{4}\. Checkpoints and logs lie", last
    )
    assert f"kd-det test {path} {tmp_path / 'work' / 'epoch_1.pth'}" in last
    assert f"kd-det report {tmp_path / 'work'} " in last
    saved = torch.load(tmp_path / "work" / "epoch_1.pth", weights_only=True)
    assert "architecture.roi_head.bbox_head.fc_cls.weight" in saved["state_dict"]
    # What a Runner keeps of its config is that of the file, and the file is left as it was.
    kept = Config.fromfile(tmp_path / "work" / "distill.py")
    written = Config.fromfile(path)
    assert "_base_ = [" in path.read_text()
    for key in ("model", "train_dataloader", "optim_wrapper", "param_scheduler", "train_cfg"):
        assert kept[key] == written[key], key


@pytest.fixture
def checked(monkeypatch) -> list[str]:
    """Names of the annotation files that are checked."""
    names = []

    def watched(found: Annotations, *args: object, **kwargs: object) -> None:
        names.append(found.path.name)
        check_entries(found, *args, **kwargs)

    for room in (inspection, coco_entries):
        monkeypatch.setattr(room, "check_entries", watched)
    return names


def test_a_dry_run_checks_the_data_once(tool, arguments, tmp_path, capsys, checked):
    # float16, which a CPU has not, becomes bfloat16 as in training.
    mixed = "optim_wrapper.type=AmpOptimWrapper"
    tool("distill", *arguments("--method", "review_nd", "--dry-run", "--amp"), mixed)
    assert checked == ["instances_train.json", "instances_val.json"]
    path = tmp_path / "work" / "config" / "distill.py"
    out = capsys.readouterr().out
    assert f"kd-det train {path} --amp\n" in out
    last = out.strip().splitlines()[-1]
    assert last.endswith(f"Config: {path}. Next: kd-det train {path} --amp")
    assert {entry.name for entry in (tmp_path / "work").iterdir()} == {"config", "data"}


def test_a_folder_of_yolo_is_converted_and_told_of_first(tool, arguments, digits, tmp_path, capsys):
    """The sample data as YOLO's, in one folder that nothing divides."""
    root = tmp_path / "as yolo"
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    data = read_annotations(digits / "annotations" / "instances_train.json")
    for image in data["images"]:
        shutil.copy(digits / "train" / image["file_name"], root / "images")
        lines = [
            f"{a['category_id'] - data['categories'][0]['id']} {(x + w / 2) / IMAGE_SIZE} "
            f"{(y + h / 2) / IMAGE_SIZE} {w / IMAGE_SIZE} {h / IMAGE_SIZE}"
            for a in data["annotations"]
            if a["image_id"] == image["id"]
            for x, y, w, h in [a["bbox"]]
        ]
        name = Path(image["file_name"]).stem
        (root / "labels" / f"{name}.txt").write_text("\n".join(lines))
    (root / "classes.txt").write_text("\n".join("0123456789"))
    tool("distill", *arguments("--data", root, "--val-split", "0.25", "--dry-run"))
    out = capsys.readouterr().out
    assert out.startswith(f"{root} is recognised as YOLO (classes.txt)\n")
    cfg = Config.fromfile(tmp_path / "work" / "config" / "distill.py")
    path = str(tmp_path / "work" / "data" / "val.json")
    assert cfg.val_dataloader.dataset.ann_file == cfg.val_evaluator.ann_file == path
    assert len(json.loads(Path(path).read_text())["images"]) == 6


def test_the_list_of_methods_needs_nothing_else(tool, capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "kd_det.pairing.compose", raising=False)
    tool("distill", "--method", "list")
    out = capsys.readouterr().out
    assert "\nrobust " in out and "arXiv 2104.09044" in out
    # Nobody waits for mmdet to read a list.
    assert "kd_det.pairing.compose" not in sys.modules


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--method", "nothing"], "unknown method 'nothing'; available: robust, "),
        (["--data", "TMP/no"], "no folder is at "),
        (["--data", TEACHER, "--val-split", "0.1"], "--val-split: expected a folder of labelled i"),
        (["--teacher-ckpt", "TMP/no.pth"], "the teacher's checkpoint does not exist: TMP/no.pth; "),
        (["--work-dir", "TMP/file"], "file is a file; choose another"),
        (
            ["--cfg-options", "train_dataloader.dataset.data_root=TMP/no"],
            "the train annotation file does not exist: TMP/no/",
        ),
    ],
)
def test_wrong_input_is_one_sentence(refusal, arguments, tmp_path, more, message):
    (tmp_path / "file").write_text("")

    def fill(word: str) -> str:
        return word.replace("TMP", str(tmp_path))

    assert fill(message) in refusal("distill", *arguments(), *map(fill, more))


def test_the_list_of_methods_for_a_pair_needs_no_weights(tool, capsys):
    retinanet = "mmdet::retinanet/retinanet_r18_fpn_1x_coco.py"
    tool("distill", retinanet, TEACHER, "--method", "list")
    out = capsys.readouterr().out
    assert "\nrobust " in out and "\nkd_nd " not in out
    assert "RoIs are not scored by the student RetinaNet" in out


def test_a_model_that_is_no_detector_of_boxes_is_told_what_would_do(refusal, arguments):
    message = refusal("distill", "mmdet::solo/solo_r50_fpn_1x_coco.py", *arguments()[1:])
    assert "PairingError" in message and "a Mask R-CNN, CondInst or RTMDet-Ins would do" in message
