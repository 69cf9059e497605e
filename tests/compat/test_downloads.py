"""A downloaded checkpoint cannot run code; one with weights loads."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader

import kd_det  # noqa: F401

URL = "https://example.invalid/{}"


class RunsCode:
    """What pickle calls when it is loaded: ``os.mkdir(folder)``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where torch.hub looks before it downloads."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_torch_hub_alone_runs_what_a_file_says(cache: Path, tmp_path: Path):
    torch.save({"state_dict": RunsCode(tmp_path / "ran")}, cache / "bad.pth")
    torch.hub.load_state_dict_from_url(URL.format("bad.pth"))
    assert (tmp_path / "ran").exists()


def test_downloaded_code_is_refused(cache: Path, tmp_path: Path):
    torch.save({"state_dict": RunsCode(tmp_path / "ran")}, cache / "bad.pth")
    with pytest.raises(pickle.UnpicklingError):
        CheckpointLoader.load_checkpoint(URL.format("bad.pth"))
    assert not (tmp_path / "ran").exists()


def test_downloaded_weights_load(cache: Path):
    torch.save({"state_dict": {"w": torch.ones(2)}, "meta": {"epoch": 3}}, cache / "good.pth")
    loaded = CheckpointLoader.load_checkpoint(URL.format("good.pth"))
    assert torch.equal(loaded["state_dict"]["w"], torch.ones(2))


def test_a_downloaded_checkpoint_of_mmengine_loads(cache: Path):
    torch.save({"message_hub": HistoryBuffer([1.0], [1]), "state_dict": {}}, cache / "full.pth")
    loaded = CheckpointLoader.load_checkpoint(URL.format("full.pth"))
    assert loaded["message_hub"].current() == 1
