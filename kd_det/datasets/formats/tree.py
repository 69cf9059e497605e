"""List a data folder once, and find the image that an annotation names."""

from __future__ import annotations

import os
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
# Names of the parts of a data set in file and folder names, without digits.
SPLIT_NAMES = {
    "train": ("train", "training", "trainset", "trainval"),
    "val": ("val", "valid", "validation", "dev", "eval"),
    "test": ("test", "testing", "testset"),
}
_SPLIT_OF = {name: split for split, names in SPLIT_NAMES.items() for name in names}
# Folders that archives made on macOS have beside the data.
_IGNORED = ("__MACOSX",)


class Tree:
    """All files under a folder; paths are relative to it, with ``/``.

    Links to folders are followed, each real folder once.

    Args:
        root: The folder, which is only read.
        elsewhere: A further folder, which may lie outside; its files are absolute paths.
    """

    def __init__(self, root: Path, elsewhere: str | None = None) -> None:
        self.root = root
        self.files: set[str] = set(_walk(root))
        if elsewhere is not None and posixpath.isabs(elsewhere):
            self.files.update(f"{elsewhere}/{path}" for path in _walk(Path(elsewhere)))
        self.images: list[str] = sorted(f for f in self.files if is_image(f))
        self._by_name: dict[str, list[str]] = defaultdict(list)
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for image in self.images:
            name = posixpath.basename(image).casefold()
            self._by_name[name].append(image)
            self._by_stem[stem(name)].append(image)

    def with_suffix(self, *suffixes: str) -> list[str]:
        """Files by their suffix, sorted."""
        return sorted(f for f in self.files if f.lower().endswith(suffixes))

    def annotations(self, suffix: str, source: str) -> list[str]:
        """Annotation files of a suffix: all if ``source`` is one of them, else those in it."""
        files = self.with_suffix(suffix)
        if source.lower().endswith(suffix):
            return files
        return [f for f in files if f.startswith(f"{source}/")]

    def find_image(
        self, name: str, folders: Sequence[str], split: str | None = None, any_suffix: bool = False
    ) -> str | None:
        """Find the image file named by an annotation; None if missing or ambiguous.

        Tried in turn: the name in each folder; without the folders that it begins with, which
        exist on another machine; the only image of that name, in small or capital letters.

        Args:
            name: As it is written in the annotation: ``\\`` and escapes of URLs are understood.
            folders: Where it may lie.
            split: The part that it belongs to: images in folders of other parts are never taken.
            any_suffix: Whether an image with another suffix will do.
        """
        for spelling in dict.fromkeys(_spellings(name)):
            parts = spelling.split("/")
            for first in range(len(parts)):
                tail = "/".join(parts[first:])
                for folder in folders:
                    path = join(folder, tail)
                    if path in self.files:
                        return path
        base = posixpath.basename(next(iter(_spellings(name)))).casefold()
        found = self._among(self._by_name[base], folders, split)
        if not found and any_suffix:
            found = self._among(self._by_stem[stem(base)], folders, split)
        return found[0] if len(found) == 1 else None

    def _among(self, paths: Sequence[str], folders: Sequence[str], split: str | None) -> list[str]:
        near = [path for path in paths if posixpath.dirname(path) in folders]
        return near or [p for p in paths if split is None or split_of_folder(p) in (None, split)]


def is_image(path: str) -> bool:
    """Whether a file has an image's suffix."""
    return path.lower().endswith(IMAGE_SUFFIXES)


def join(folder: str, path: str) -> str:
    """``path`` in ``folder``, normalised; ``''`` is the root."""
    return posixpath.normpath(posixpath.join(folder, path))


def stem(path: str) -> str:
    """A path without its last suffix."""
    return posixpath.splitext(path)[0]


def split_of(path: str) -> str | None:
    """The part that a path names: by its last word of that kind, from the file name upwards."""
    for part in reversed(posixpath.splitext(path)[0].split("/")):
        for word in reversed(re.split(r"[^a-z]+", part.lower())):
            if word in _SPLIT_OF:
                return _SPLIT_OF[word]
    return None


def split_of_folder(path: str) -> str | None:
    """The part that an image's folder names."""
    return split_of(posixpath.dirname(path)) if posixpath.dirname(path) else None


def few(names: Iterable[object], number: int = 3) -> str:
    """The first names, and how many more."""
    shown = [str(name) for name in names]
    more = f" and {len(shown) - number} more" if len(shown) > number else ""
    return ", ".join(shown[:number]) + more


def _walk(root: Path) -> Iterator[str]:
    seen = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [f for f in folders if not f.startswith(".") and f not in _IGNORED]
        place = os.path.relpath(folder, root).replace(os.sep, "/")
        prefix = "" if place == "." else f"{place}/"
        yield from (prefix + name for name in files if not name.startswith("."))


def _spellings(name: str) -> Iterator[str]:
    """A name as a relative path with ``/``, as it stands and with URL escapes read."""
    yield name
    plain = re.sub(r"^[A-Za-z]:", "", name).replace("\\", "/")
    for spelling in (plain, unquote(plain)):
        parts = [part for part in spelling.split("/") if part not in ("", ".", "..")]
        if parts:
            yield "/".join(parts)
