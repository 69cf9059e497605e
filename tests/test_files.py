"""Files appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kd_det.files import write_atomically


def test_writes_into_new_folders_and_over_what_was_there(tmp_path: Path):
    path = tmp_path / "a" / "b" / "file.txt"
    for content in (b"first", b"second"):
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_what_was_there_survives_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "file.txt"
    write_atomically(path, b"kept")

    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    for step in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, step, fail)
            with pytest.raises(OSError, match="no space left"):
                write_atomically(path, b"new")
        assert path.read_bytes() == b"kept"
        assert list(tmp_path.iterdir()) == [path]
