"""kd-det export finds config and checkpoint of a run, or says what it misses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file


@pytest.fixture
def work(trained, tmp_path) -> Path:
    """A copy of a trained work directory, without what its hook has exported."""
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    shutil.rmtree(folder / "student")
    return folder


def test_the_last_checkpoint_as_the_hook_exports_it(trained, work, tool, capsys):
    tool("export", work)
    assert f"of {work}/epoch_1.pth (coco/bbox_mAP 0.0" in capsys.readouterr().out
    theirs, ours = (folder / "student" for folder in (trained, work))
    for name in ("config.py", "metadata.json"):
        assert (ours / name).read_text() == (theirs / name).read_text()
    expected, found = (load_file(folder / "model.safetensors") for folder in (theirs, ours))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_file_or_the_best_goes_into_a_folder_of_its_own(work, tool, tmp_path, capsys):
    tool("export", work, "--checkpoint", work / "epoch_1.pth")
    assert (work / "student_epoch_1" / "model.safetensors").is_file()
    shutil.copy(work / "epoch_1.pth", work / "best_coco_bbox_mAP_epoch_1.pth")
    tool("export", work, "--checkpoint", "best")
    found = json.loads((work / "student_best" / "metadata.json").read_text())
    assert found["checkpoint"] == "best_coco_bbox_mAP_epoch_1.pth"
    tool("export", work, "--out", tmp_path / "mine" / "model")
    assert (tmp_path / "mine" / "model" / "config.py").is_file()
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"is in {tmp_path}/mine/model")


@pytest.mark.parametrize(
    "missing, arguments, message",
    [
        ("run", ["nowhere"], "the work directory does not exist: nowhere; give that of a training"),
        ("last_checkpoint", [], "run has no finished checkpoint: expected a file last_checkpoint"),
        ("epoch_1.pth", [], "last_checkpoint names does not exist: /elsewhere/epoch_1.pth"),
        ("*.py", [], "expected the run's config, a .py file, in "),
        ("none", ["--checkpoint", "best"], "(CheckpointHook's save_best writes it), found none"),
        ("none", ["--checkpoint", "x.pth"], "the checkpoint does not exist: x.pth; --checkpoint"),
    ],
)
def test_what_is_missing_is_named(work, refusal, trained, missing, arguments, message):
    (work / "last_checkpoint").write_text("/elsewhere/epoch_1.pth")  # as if it had been moved
    for path in work.glob(missing):
        path.unlink()
    assert message in refusal("export", *([work] if missing != "run" else []), *arguments)


def test_options_of_onnx_without_it_are_refused(work, refusal):
    message = refusal("export", work, "--size", "64", "64", "--check-map")
    assert "--size, --check-map: for --format onnx alone" in message


def test_of_several_configs_that_of_the_checkpoint_is_taken(work, tool, refusal, capsys):
    config = next(work.glob("*.py"))
    text = config.read_text()
    (work / "a_later_run.py").write_text(text.replace("CocoDataset", "OtherDataset"))
    tool("export", work)
    assert "warning" not in capsys.readouterr().out
    assert "OtherDataset" not in (work / "student" / "config.py").read_text()
    config.write_text(text + "\n")
    assert "to be the config that epoch_1.pth was made with" in refusal("export", work)


def test_weights_of_another_model_are_refused(work, refusal):
    config = next(work.glob("*.py"))
    config.write_text(config.read_text().replace("fc_out_channels=128", "fc_out_channels=64"))
    message = refusal("export", work)
    assert "does not fit the student FasterRCNN" in message and "fc_cls.weight" in message
    assert not (work / "student").exists()


def test_other_files_in_the_folder_are_not_lost(work, refusal):
    assert "is replaced as a whole" in refusal("export", work, "--out", work)
    torch.load(work / "epoch_1.pth", weights_only=True)
