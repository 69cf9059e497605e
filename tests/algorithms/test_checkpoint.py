"""Teacher weights from files: whole, of another teacher, with more in them, or no checkpoint."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from kd_det.algorithms import CheckpointError
from kd_det.algorithms.checkpoint import (
    load_any_weights,
    load_weights,
    read_weights,
    weights_sha256,
)


def test_weights_that_do_not_fit_are_listed_and_others_left_out(tmp_path: Path):
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    path = tmp_path / "teacher.pth"
    with pytest.raises(FileNotFoundError, match=r"teacher.pth does not exist"):
        load_weights(model, str(path), "teacher")
    state = {name: torch.ones_like(value) for name, value in model.state_dict().items()}
    torch.save({**state, "mask_head.x": torch.zeros(1)}, path)
    assert load_weights(model, str(path), "teacher") is None
    assert all(parameter.eq(1).all() for parameter in model.parameters())
    del state["0.bias"]
    torch.save({**state, "1.bias": torch.zeros(2)}, path)
    message = r"of 4 weights. 1 missing: 0.bias. 1 of another shape: 1.bias .expected \[1\], found"
    with pytest.raises(CheckpointError, match=message):
        load_weights(model, str(path), "teacher")


GIT_LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:12\n"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"half", "found something else"),
        (b"PK\x03\x04 truncated", "found something else"),
        (None, "found something else"),  # half of a checkpoint
        (b"", "it is empty"),
        (GIT_LFS, "run 'git lfs pull'"),
        (b"<html>not found</html>", "it is a web page"),
        (b"\n<!DOCTYPE html><html>", "it is a web page"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_named(
    teacher_ckpt: Path, tmp_path: Path, content: bytes | None, reason: str
):
    whole = teacher_ckpt.read_bytes()
    path = tmp_path / "teacher.pth"
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    message = rf"teacher's checkpoint .*teacher\.pth cannot be read: .*{reason}"
    with pytest.raises(CheckpointError, match=message) as raised:
        read_weights(path, "teacher")
    assert "weights_only" not in str(raised.value)


def test_safetensors_are_read(teacher_ckpt: Path, tmp_path: Path):
    state = torch.load(teacher_ckpt, weights_only=True)["state_dict"]
    path = tmp_path / "teacher.safetensors"
    save_file({k: v.contiguous() for k, v in state.items()}, path)
    loaded, _ = read_weights(path, "teacher")
    assert all(torch.equal(loaded[key], value) for key, value in state.items())
    path.write_bytes(path.read_bytes()[:99])
    with pytest.raises(CheckpointError, match=r"teacher\.safetensors cannot be read"):
        read_weights(path, "teacher")


def test_a_checkpoint_with_code_in_it_is_refused_and_does_not_run(tmp_path: Path):
    class Code:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"state_dict": {"weight": Code()}}, tmp_path / "teacher.pth")
    with pytest.raises(CheckpointError, match=r"teacher\.pth cannot be read") as raised:
        read_weights(tmp_path / "teacher.pth", "teacher")
    assert not (tmp_path / "ran").exists()
    # Torch would have people load it without its check.
    assert "weights_only" not in str(raised.value) and "Re-running" not in str(raised.value)


WEIGHT = torch.ones(2)


@pytest.mark.parametrize(
    "content",
    [
        dict(state_dict={"a.w": WEIGHT}, ema_state_dict={"module.a.w": WEIGHT + 1}),
        dict(model={"module.module.a.w": WEIGHT}),
        dict(model_state_dict={"a.w": WEIGHT}, epoch=3),
        dict(ema_state_dict={"module.architecture.a.w": WEIGHT, "steps": torch.tensor(3)}),
        dict(state_dict={"architecture.a.w": WEIGHT, "distiller.b": WEIGHT}),
        dict(state_dict={"teacher.a.w": WEIGHT, "student.a.w": WEIGHT + 1}),
        {"a.w": WEIGHT},
    ],
)
def test_weights_are_found_in_every_common_form(tmp_path: Path, content: dict):
    path = tmp_path / "w.pth"
    torch.save(content, path)
    state, _ = read_weights(path, "student")
    assert list(state) == ["a.w"] and state["a.w"].equal(WEIGHT)
    assert load_any_weights(f"kd_det:{path}")["state_dict"].keys() == state.keys()


def test_a_folder_is_called_one(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"it is a folder; .*there is no \.pth in it"):
        read_weights(tmp_path, "teacher")
    (tmp_path / "epoch_3.pth").touch()
    with pytest.raises(CheckpointError, match=r"it is a folder; .*epoch_3\.pth"):
        read_weights(tmp_path, "teacher")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.bool, torch.int64])
def test_weights_of_every_dtype_have_a_digest(dtype: torch.dtype):
    model = torch.nn.Module()
    model.register_buffer("scalar", torch.ones((), dtype=dtype))
    model.register_buffer("none", torch.ones(0, dtype=dtype))
    before = weights_sha256(model)
    model.scalar.zero_()
    assert weights_sha256(model) != before


def test_the_digest_of_a_model_stays_what_it_was():
    """Class centers and recorded metrics are kept under it."""
    model = torch.nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 2.0]]))
        model.bias.fill_(3)
    assert weights_sha256(model).startswith("7d779ee7ab63f946")


def test_a_download_that_fails_is_named():
    url = "http://127.0.0.1:9/teacher.pth"  # where nothing listens
    with pytest.raises(CheckpointError, match=f"the teacher's checkpoint {url} cannot be downl"):
        read_weights(url, "teacher")
