"""kd-det centers writes the file that training would gather."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config
from small import runner

from kd_det import ClassCenterHook
from kd_det.centers import ClassCenters


def test_file_is_that_of_the_hook_and_fits_training(tool, config_file, tmp_path):
    config = config_file()
    tool("centers", config, "--out", tmp_path / "new" / "centers.safetensors")
    found = ClassCenters.load(tmp_path / "new" / "centers.safetensors")
    assert int(found.counts.sum()) == 8 * 64

    run = runner(Config.fromfile(config))
    (gathered,) = ClassCenterHook().collect(run).values()
    assert torch.equal(found.means, gathered.means)
    assert torch.equal(found.counts, gathered.counts)
    assert found.metadata == {**gathered.metadata, "format_version": "1"}
    ClassCenterHook(file=str(tmp_path / "new" / "centers.safetensors")).before_train(run)
    assert torch.equal(run.model.distiller.distill_losses["loss_nd"].centers, found.means)


def test_options_reach_the_prepass(tool, config_file, tmp_path):
    options = ["--work-dir", tmp_path / "run", "--rois", "gt", "--max-images", 3]
    # What training would need beside the data is not needed here.
    config = config_file(
        **{"val_dataloader.dataset.data_root": str(tmp_path / "no"), "custom_hooks": []}
    )
    tool("centers", config, *options)
    found = ClassCenters.load(tmp_path / "run" / "class_centers.safetensors")
    assert 0 < found.counts.sum() <= 3 * 6 and found.counts[-1] == 0
    assert found.metadata["embedding"].endswith("RoIs gt")
    assert found.metadata["dataset"] == "CocoDataset, 3 of 8 images"


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("model.teacher_ckpt", "the teacher's checkpoint does not exist: "),
        ("train_dataloader.dataset.data_root", "the train annotation file does not exist: "),
    ],
)
def test_missing_files_are_one_sentence(refusal, config_file, tmp_path, key, message):
    config = config_file(**{key: str(tmp_path / "no")})
    assert f"{message}{tmp_path}/no" in refusal("centers", config)


def test_plain_config_and_wrong_number_are_one_sentence(refusal, config_file):
    assert "has no model.teacher; give a distillation config" in (
        refusal("centers", config_file("plain"))
    )
    assert "expected max_images >= 1, found 0" in (
        refusal("centers", config_file(), "--max-images", 0)
    )
