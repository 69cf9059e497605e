"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

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


def test_file_systems_that_cannot_flush_lock_or_change_permissions(tmp_path: Path, monkeypatch):
    """Network, FUSE and FAT mounts."""

    def refuse(number: int):
        def call(*_: object, **__: object) -> None:
            raise OSError(number, os.strerror(number))

        return call

    monkeypatch.setattr(os, "fsync", refuse(errno.EINVAL))
    monkeypatch.setattr(os, "chmod", refuse(errno.EPERM))
    monkeypatch.setattr(FileLock, "acquire", refuse(errno.EOPNOTSUPP))
    for content in (b"first", b"second"):
        write_folder_atomically(tmp_path / "folder", {"file": content})
        assert (tmp_path / "folder" / "file").read_bytes() == content


OLD, NEW = {"a": b"1", "b": b"1"}, {"a": b"2", "b": b"2"}


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def entries(folder: Path) -> list[str]:
    """Names in a folder, but for locks."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path):
    folder = tmp_path / "deep" / "folder"
    for each in (OLD, NEW):
        write_folder_atomically(folder, each)
        assert content(folder) == each
        assert entries(folder.parent) == ["folder"]


def test_a_function_may_write_a_file(tmp_path: Path):
    folder = tmp_path / "folder"
    write_folder_atomically(folder, {"a": b"1", "b": lambda path: path.write_bytes(b"1") and None})
    assert content(folder) == OLD

    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "no space left on device")

    with pytest.raises(OSError, match="no space left"):
        write_folder_atomically(folder, {"a": b"2", "b": fail})
    assert content(folder) == OLD and entries(tmp_path) == ["folder"]


def test_behind_a_link_the_folder_is_replaced(tmp_path: Path):
    write_folder_atomically(tmp_path / "real", OLD)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_folder_atomically(tmp_path / "link", NEW)
    assert (tmp_path / "link").is_symlink()
    assert content(tmp_path / "real") == NEW and entries(tmp_path) == ["link", "real"]


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
        assert content(folder) == OLD and entries(tmp_path) == ["folder"]


@pytest.mark.parametrize("failing", [0, 1])
def test_the_old_folder_survives_a_failed_rename(tmp_path: Path, monkeypatch, failing):
    folder = tmp_path / "folder"
    write_folder_atomically(folder, OLD)
    real, calls = os.rename, []

    def fail(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == failing + 1:
            raise OSError(13, "permission denied")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", fail)
        with pytest.raises(OSError, match="permission denied"):
            write_folder_atomically(folder, NEW)
    assert content(folder) == OLD and entries(tmp_path) == ["folder"]


@pytest.mark.parametrize("at", ["between the renames", "after them"])
def test_a_kill_is_healed_by_the_next_call(tmp_path: Path, at):
    folder, old = tmp_path / "folder", tmp_path / ".folder.old"
    write_folder_atomically(old, OLD)
    new = folder if at == "after them" else tmp_path / ".folder.new-12345678"
    write_folder_atomically(new, NEW)
    with pytest.raises(FileExistsError):  # before it finds that it has nothing to do here
        write_folder_atomically(folder, {})
    assert content(folder) == (NEW if at == "after them" else OLD)
    assert entries(tmp_path) == ["folder"]


WRITER = """
import sys
from pathlib import Path
from kd_det.files import write_folder_atomically
mark = sys.argv[2].encode()
for _ in range(40):
    write_folder_atomically(Path(sys.argv[1]), {name: mark * 100000 for name in "abcd"})
"""


def test_two_processes_at_once_leave_one_whole_folder(tmp_path: Path):
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "folder"), mark])
        for mark in "12"
    ]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    found = content(tmp_path / "folder")
    assert found.keys() == set("abcd") and len(set(found.values())) == 1
    assert entries(tmp_path) == ["folder"]


def test_what_a_kill_left_is_removed_and_other_files_are_not_lost(tmp_path: Path):
    folder = tmp_path / "folder"
    (tmp_path / ".folder.new-12345678").mkdir()
    (tmp_path / ".folder.mine").mkdir()
    write_folder_atomically(folder, OLD)
    assert entries(tmp_path) == [".folder.mine", "folder"]
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"nothing there but .*found \['notes.txt'\]"):
        write_folder_atomically(folder, NEW)
    assert content(folder) == {**OLD, "notes.txt": b"mine"}
