"""Write files so that a crash leaves the old one or the new one, never half of one."""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

# What file systems answer that cannot do a thing: network, FUSE and FAT mounts.
_UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


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
            _flush(file.fileno())
        with suppress(PermissionError):  # mounts where all files have the same permissions
            os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        os.unlink(temporary)
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def write_folder_atomically(
    folder: Path, files: Mapping[str, bytes | Callable[[Path], None]]
) -> None:
    """Write files that belong together: ``folder`` has all of the old ones or all of the new ones.

    They are written into a folder of a temporary name, which then takes the place of ``folder`` by
    two renames. A kill between them leaves no ``folder``; the next call puts the old one back
    before it does anything else. Processes that write the same folder wait for each other, by the
    file ``.<name>.lock`` beside it, which stays.

    Args:
        folder: What holds no others than ``files`` (of an earlier call), or is not there yet.
        files: Contents by name; of what is too large to have in memory twice, a function that
            writes the file of a path.

    Raises:
        FileExistsError: If there are other files in ``folder``; they would be lost.
        OSError: If it cannot be written. What stood there before is left.
    """
    folder = folder.resolve()  # behind a link, the folder is replaced and the link stays
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_name(f".{folder.name}.lock")):
        old = folder.with_name(f".{folder.name}.old")
        _repair(folder, old)
        there = {path.name for path in folder.iterdir()} if folder.exists() else set()
        if others := sorted(there - set(files)):
            raise FileExistsError(
                f"{folder} is replaced as a whole: expected nothing there but {sorted(files)}, "
                f"found {others}"
            )
        new = Path(tempfile.mkdtemp(dir=folder.parent, prefix=_prefix(folder)))
        try:
            with suppress(PermissionError):
                os.chmod(new, 0o755)
            for name, data in files.items():
                if isinstance(data, bytes):
                    write_atomically(new / name, data)
                    continue
                data(new / name)
                with open(new / name, "rb+") as file:
                    _flush(file.fileno())
            _flush_folder(new)
            if folder.exists():
                os.rename(folder, old)
            os.rename(new, folder)
            _flush_folder(folder.parent)
        finally:
            shutil.rmtree(new, ignore_errors=True)
            _repair(folder, old)


def _prefix(folder: Path) -> str:
    return f".{folder.name}.new-"


def _repair(folder: Path, old: Path) -> None:
    """Put back or remove what a call that ended too early has left."""
    if old.exists():
        if not folder.exists():
            os.rename(old, folder)
        else:
            shutil.rmtree(old)
    for left in folder.parent.glob(f"{glob.escape(_prefix(folder))}*"):
        shutil.rmtree(left)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the file's lock, or none where the file system has no locks."""
    lock = FileLock(path)
    try:
        lock.acquire()
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _UNSUPPORTED:
            raise
    try:
        yield
    finally:
        lock.release()  # nothing, where it is not held


def _flush(handle: int) -> None:
    """Let what was written reach the disk, where the file system can be asked to."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise


def _flush_folder(folder: Path) -> None:
    """Let the names in a folder reach the disk; Windows opens no folders."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        _flush(handle)
    finally:
        os.close(handle)
