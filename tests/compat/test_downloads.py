"""A downloaded checkpoint cannot run code; one with weights loads."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader


class RunsCode:
    """What pickle calls when it is loaded: ``os.mkdir(folder)``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[object], str]:
    """Put a checkpoint where torch.hub looks before it downloads; its URL."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)

    def save(content: object) -> str:
        torch.save(content, folder / "file.pth")
        return "https://example.invalid/file.pth"

    return save


def test_code_is_refused_that_torch_hub_alone_runs(publish, tmp_path: Path):
    url = publish({"state_dict": RunsCode(tmp_path / "ran")})
    with pytest.raises(pickle.UnpicklingError):
        CheckpointLoader.load_checkpoint(url)
    assert not (tmp_path / "ran").exists()
    torch.hub.load_state_dict_from_url(url)
    assert (tmp_path / "ran").exists()


def test_a_checkpoint_of_mmengine_loads(publish):
    url = publish({"message_hub": HistoryBuffer([1.0], [1]), "state_dict": {"w": torch.ones(2)}})
    loaded = CheckpointLoader.load_checkpoint(url)
    assert torch.equal(loaded["state_dict"]["w"], torch.ones(2))
    assert loaded["message_hub"].current() == 1
