"""The teacher's own training: its config on the data, from what it is told to start from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from small import ROOT, build, load
from zoo import FASTER

from kd_det.datasets.coco import DataError
from kd_det.pairing import PairingError
from kd_det.pairing.start_weights import describe_start, find_downloads, loaded_table
from kd_det.pairing.teacher_training import teacher_training

PLAIN, TEACHER = (str(ROOT / "configs" / "digits" / f"{name}.py") for name in ("plain", "teacher"))

pytestmark = pytest.mark.usefixtures("offline")


@pytest.fixture
def of_three_classes(tmp_path: Path) -> str:
    """Weights of the digits' teacher, but for three classes."""
    cfg = load(Path(TEACHER))
    cfg.model.roi_head.bbox_head.num_classes = 3
    torch.save(dict(state_dict=build(cfg.model).state_dict()), tmp_path / "three.pth")
    return str(tmp_path / "three.pth")


def test_it_is_the_teachers_own_config_on_the_data(digits, tmp_path):
    found = teacher_training(TEACHER, PLAIN, str(digits), str(tmp_path / "teacher"))
    own = Config.fromfile(TEACHER)
    for key in ("optim_wrapper", "train_cfg", "val_cfg", "model", "visualizer"):
        assert found.cfg[key] == own[key], key
    assert found.cfg.train_dataloader.dataset.data_root == f"{digits}/"
    assert found.checkpoint == tmp_path / "teacher" / "model_best" / "model.pth"
    (export,) = [h for h in found.cfg.default_hooks.values() if "StudentExport" in h.type]
    assert export.name == "model" and export.best
    assert "  - schedule: the teacher's own, 6 epochs" in found.describe()
    path = tmp_path / "config" / "teacher.py"
    found.write(path)
    assert Config.fromfile(path).to_dict() == found.cfg.to_dict()


def test_length_and_batch_are_the_teachers(digits, tmp_path):
    options = dict(epochs=3, batch_size=2)
    cfg = teacher_training(TEACHER, PLAIN, str(digits), str(tmp_path / "t"), **options).cfg
    assert cfg.train_cfg.max_epochs == 3 and cfg.param_scheduler[-1].T_max == 3
    assert cfg.train_dataloader.batch_size == 2


def test_without_a_start_it_is_that_of_the_config(digits, tmp_path, monkeypatch):
    found = teacher_training(FASTER, PLAIN, str(digits), str(tmp_path / "t"))
    assert describe_start(found.cfg.model) == "torchvision://resnet50" and found.start is None
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (url,) = find_downloads(found.cfg.model.to_dict())
    assert url.startswith("https://") and "/resnet50-" in url
    # What is there is not downloaded.
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / url.rpartition("/")[2]).touch()
    assert find_downloads(found.cfg.model.to_dict()) == []


def test_heads_of_other_classes_are_left_out_and_told(digits, tmp_path, of_three_classes):
    found = teacher_training(TEACHER, PLAIN, str(digits), str(tmp_path / "t"), of_three_classes)
    rows = loaded_table(found.detector.model, of_three_classes, "teacher").splitlines()
    cells = {row.split()[0]: row.split(maxsplit=3)[1:] for row in rows[1:]}
    assert cells["backbone"][0] == cells["backbone"][1] and len(cells["backbone"]) == 2
    assert cells["roi_head"][:2] == ["8", "4"]
    assert "bbox_head.fc_cls.weight [11, 128] (there: [4, 128])" in cells["roi_head"][2]
    model = build(found.cfg.model)
    model.init_weights()
    saved = torch.load(of_three_classes, weights_only=True)["state_dict"]
    for name, value in model.state_dict().items():
        if value.shape == saved[name].shape:
            assert torch.equal(value, saved[name]), name


def test_a_whole_start_replaces_that_of_the_backbone(digits, tmp_path):
    url = "https://host/coco.pth"
    found = teacher_training(FASTER, PLAIN, str(digits), str(tmp_path / "t"), url)
    assert describe_start(found.cfg.model) == url
    assert find_downloads(found.cfg.model.to_dict()) == [url]


def test_a_start_of_something_else_is_refused(digits, tmp_path):
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "backbone.pth")
    start = str(tmp_path / "backbone.pth")
    message = r"none of the 1 weights in .*backbone.pth.*fits the teacher FasterRCNN"
    with pytest.raises(PairingError, match=message):
        teacher_training(TEACHER, PLAIN, str(digits), str(tmp_path / "t"), start)


def test_of_several_metrics_one_chooses_the_weights(digits, tmp_path):
    path = tmp_path / "t.py"
    hook = dict(type="CheckpointHook", interval=1, save_best=["coco/bbox_mAP", "coco/bbox_mAP_50"])
    path.write_text(f"_base_ = {TEACHER!r}\ndefault_hooks = dict(checkpoint={hook!r})\n")
    cfg = teacher_training(str(path), PLAIN, str(digits), str(tmp_path / "t")).cfg
    assert cfg.default_hooks.checkpoint.save_best == "coco/bbox_mAP"


def test_an_error_says_that_it_is_about_the_teacher(tmp_path):
    with pytest.raises(DataError) as caught:
        teacher_training("mmdet::_base_/models/faster-rcnn_r50_fpn.py", FASTER, str(tmp_path), "t")
    assert "the training of the teacher, mmdet::_base_" in caught.value.__notes__[0]
