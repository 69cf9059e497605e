"""Writing files so that a crash leaves the old one or the new one, never half of one."""

from __future__ import annotations

import ctypes
import glob
import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path


def file_sha256(path: Path | str) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:  # in chunks: hashlib.file_digest is new in Python 3.11
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` under a temporary name beside ``path``, flush to disk, rename.

    Raises:
        OSError: If it cannot be written; names the file. What stood there before is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        os.unlink(temporary)
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def write_folder_atomically(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files that belong together: ``folder`` has all of the old ones or all of the new ones.

    They are written into a folder of a temporary name, which then takes the place of ``folder`` in
    one step (where the file system cannot do that, in two, and a kill in between leaves none).

    Args:
        folder: What holds no others than ``files`` (of an earlier call), or is not there yet.
        files: Contents by name.

    Raises:
        FileExistsError: If there are other files in ``folder``; they would be lost.
        OSError: If it cannot be written. What stood there before is left.
    """
    there = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if others := sorted(there - set(files)):
        raise FileExistsError(
            f"{folder} is replaced as a whole: expected nothing there but {sorted(files)}, "
            f"found {others}"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{folder.name}.new-"
    for left in folder.parent.glob(f"{glob.escape(prefix)}*"):  # by a kill
        shutil.rmtree(left)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=prefix))
    try:
        temporary.chmod(0o755)
        for name, data in files.items():
            write_atomically(temporary / name, data)
        _flush(temporary)
        _replace(temporary, folder)
        _flush(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _flush(folder: Path) -> None:
    """Let the names in a folder reach the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _replace(new: Path, folder: Path) -> None:
    """Rename ``new`` to ``folder``; what stood there has the name ``new`` then, or is gone."""
    if not folder.exists():
        os.rename(new, folder)
    elif not _exchange(new, folder):
        aside = Path(f"{new}-old")
        os.rename(folder, aside)
        os.rename(new, folder)
        shutil.rmtree(aside)


def _exchange(a: Path, b: Path) -> bool:
    """Let two folders change names in one step; False where that cannot be done."""
    # Linux has it as renameat2, which Python does not offer: linux/fs.h, linux/fcntl.h.
    rename_exchange, at_fdcwd = 2, -100
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (AttributeError, TypeError):
        return False
    names = (os.fsencode(a), os.fsencode(b))
    return renameat2(at_fdcwd, names[0], at_fdcwd, names[1], rename_exchange) == 0
