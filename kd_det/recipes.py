"""Recipes of pairs: one file for a teacher and a student, the method by name.

Such a file names its method as ``{{$KD_DET_METHOD:review_nd}}``, MMEngine's way to take a part of a
config from an environment variable: without one, the file is the recipe of the method behind the
colon.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.config import Config

from kd_det.errors import InvalidInputError

VARIABLE = "KD_DET_METHOD"
# The base of a pair's file that is its method: the folder, and the method by default.
_METHOD_BASE = re.compile(r'"([^"\n]+)/\{\{\$' + VARIABLE + r':(\w+)\}\}\.py"')
_MISSING = re.compile(r'file "(.+)" does not exist')  # MMEngine's words, also for bases


def load_recipe(path: str | Path, method: str | None = None) -> Config:
    """Read a config, with the method of that name where it is given.

    Args:
        path: Any config; with ``method``, that of a pair or one that derives from it.
        method: What ``--method`` names.

    Raises:
        FileNotFoundError: If the config or one from which it derives does not exist; tells what a
            recipe of former versions is called now.
        InvalidInputError: For an unknown method, a config that fixes its method, or one whose base
            does not exist.
    """
    try:
        with _chosen(method):
            cfg = Config.fromfile(path)
    except FileNotFoundError as error:
        missing = missing_file(error) or Path(path)
        wanted = method or os.environ.get(VARIABLE)
        if wanted == missing.stem and missing.parent.name == "methods":
            available = ", ".join(_names(missing.parent))
            raise InvalidInputError(
                f"unknown method {wanted!r} for {path}; available: {available}"
            ) from error
        moved = moved_to(missing)
        if moved is None and missing.name != Path(path).name:
            raise without_base(str(path), missing) from error
        if moved is None:
            raise
        raise FileNotFoundError(f"the config does not exist: {missing}; {moved}") from error
    if method is not None and cfg.get("method") != method:
        raise InvalidInputError(
            f"{path} is a recipe for one method, so --method {method} cannot change it; --method "
            "is for the config of a pair, such as kd_det::frcnn_r101_r18.py"
        )
    return cfg


def missing_file(error: FileNotFoundError) -> Path | None:
    """The file that MMEngine looked for while it read a config."""
    found = _MISSING.search(str(error))
    name = error.filename or (found[1] if found else None)
    return Path(name) if name else None


def without_base(name: str, missing: Path | None) -> InvalidInputError:
    """The error of a config whose base does not exist, as of some in mmdet's package."""
    return InvalidInputError(
        f"{name} derives from a config that does not exist: {missing}; correct its _base_, or give "
        "another config"
    )


def methods_of(pair: Path) -> list[str]:
    """The methods that a pair's file can be read with; none for any other config."""
    found = _METHOD_BASE.search(pair.read_text(encoding="utf-8"))
    return _names(pair.parent / found[1]) if found else []


def run_name(path: str | Path, cfg: Config) -> str:
    """The name of the config's runs: the file's name, for a pair with the method."""
    name, method = Path(str(path).rpartition("::")[2]).stem, cfg.get("method")
    fixed = not isinstance(method, str) or name == method or name.endswith(f"_{method}")
    return name if fixed else f"{name}_{method}"


def method_option(cfg: Config) -> list[str]:
    """The option of a command line that reads the same config again."""
    method = cfg.env_variables.get(VARIABLE)
    return [] if method is None else ["--method", method]


def locate(path: Path) -> tuple[Path, str | None]:
    """The file and the method of a recipe that is named ``<pair>_<method>.py``.

    In a folder with one pair, ``<method>.py`` will do. A file that exists is returned as it is.

    Raises:
        FileNotFoundError: If neither the file nor such a pair exists.
    """
    if path.exists():
        return path, None
    pairs = {pair: methods_of(pair) for pair in sorted(path.parent.glob("*.py"))}
    pairs = {pair: methods for pair, methods in pairs.items() if methods}
    for pair, methods in pairs.items():
        for method in methods:
            if path.stem == f"{pair.stem}_{method}" or (path.stem == method and len(pairs) == 1):
                return pair, method
    raise FileNotFoundError(f"the recipe does not exist: {path}")


def load_named(path: Path) -> Config:
    """Read the recipe that :func:`locate` finds."""
    return load_recipe(*locate(path))


def moved_to(path: Path) -> str | None:
    """The new name of a recipe of former versions, of one pair and one method."""
    try:
        pair, method = locate(path)
    except FileNotFoundError:
        return None
    return None if method is None else f"it is {pair} with --method {method} now"


@contextmanager
def _chosen(method: str | None) -> Iterator[None]:
    before = os.environ.get(VARIABLE)
    if method is not None:
        os.environ[VARIABLE] = method
    try:
        yield
    finally:
        if method is not None:
            os.environ.pop(VARIABLE)
            if before is not None:
                os.environ[VARIABLE] = before


def _names(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.py"))
