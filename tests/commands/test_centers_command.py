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
    ("recipe", "changed", "arguments", "message"),
    [
        ("review_nd_kd", "model.teacher_ckpt", [], "the teacher's checkpoint does not exist: TMP"),
        (
            "review_nd_kd",
            "train_dataloader.dataset.data_root",
            [],
            "the train annotation file does not exist: TMP",
        ),
        ("plain", "work_dir", [], "has no model.teacher; give a distillation config"),
        ("review_nd_kd", "work_dir", ["--max-images", 0], "expected max_images >= 1, found 0"),
    ],
)
def test_wrong_input_is_one_sentence(
    refusal, config_file, tmp_path, recipe, changed, arguments, message
):
    config = config_file(recipe, **{changed: str(tmp_path / "no")})
    assert message.replace("TMP", f"{tmp_path}/no") in refusal("centers", config, *arguments)
