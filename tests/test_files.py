"""Files appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kd_det import files
from kd_det.files import write_atomically, write_folder_atomically


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


OLD, NEW = {"a": b"1", "b": b"1"}, {"a": b"2", "b": b"2"}


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("exchange", [True, False])
def test_a_folder_is_replaced_as_a_whole(tmp_path: Path, monkeypatch, exchange):
    if not exchange:  # what another system or file system answers
        monkeypatch.setattr(files, "_exchange", lambda a, b: False)
    folder = tmp_path / "deep" / "folder"
    for each in (OLD, NEW):
        write_folder_atomically(folder, each)
        assert content(folder) == each
        assert list(folder.parent.iterdir()) == [folder]


def test_the_old_folder_survives_a_failure_at_any_step(tmp_path: Path, monkeypatch):
    folder = tmp_path / "folder"
    write_folder_atomically(folder, OLD)
    real, calls = os.fsync, []
    for failing in range(3):  # two files, then their folder

        def fail(handle: int, failing: int = failing) -> None:
            calls.append(handle)
            if len(calls) > failing:
                raise OSError(28, "no space left on device")
            real(handle)

        calls.clear()
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            with pytest.raises(OSError, match="no space left"):
                write_folder_atomically(folder, NEW)
        assert content(folder) == OLD and list(tmp_path.iterdir()) == [folder]


def test_two_folders_change_names_in_one_step(tmp_path: Path):
    a, b = tmp_path / "a", tmp_path / "b"
    write_folder_atomically(a, OLD), write_folder_atomically(b, NEW)
    assert files._exchange(a, b)  # on Linux; the fallback has its own test
    assert content(a) == NEW and content(b) == OLD
    assert not files._exchange(a, tmp_path / "none")


def test_what_a_kill_left_is_removed_and_other_files_are_not_lost(tmp_path: Path):
    folder = tmp_path / "folder"
    (tmp_path / ".folder.new-12345678").mkdir()
    (tmp_path / ".folder.mine").mkdir()
    write_folder_atomically(folder, OLD)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".folder.mine", "folder"]
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"nothing there but .*found \['notes.txt'\]"):
        write_folder_atomically(folder, NEW)
    assert content(folder) == {**OLD, "notes.txt": b"mine"}
