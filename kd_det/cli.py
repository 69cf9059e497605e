"""What the command lines in tools/ share: options, early checks, errors in one sentence."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict, DictAction
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.utils import get_installed_path

DEBUG_VARIABLE = "KD_DET_DEBUG"
# What becomes of a tool that is stopped by Ctrl-C.
STARTS_OVER = "the same command starts over"
GOES_ON = "the same command goes on where it was"
GOES_ON_WITH_RESUME = (
    "the same command with --resume goes on from the last checkpoint (from the beginning, if there "
    "is none yet)"
)
OWN_CODE = (Path(__file__).parent, Path(sys.argv[0]).resolve().parent)


def parser(description: str, example: str) -> argparse.ArgumentParser:
    """A parser with the options that every tool on a config has."""
    result = bare_parser(description, example)
    result.add_argument("config", help="config file, or a config of a package (mmdet::...)")
    result.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm", "mpi"],
        default="none",
        help="how several processes were started (see tools/dist_train.sh)",
    )
    # torchrun of old passes it; new versions set LOCAL_RANK by themselves.
    result.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    return result


def bare_parser(description: str, example: str) -> argparse.ArgumentParser:
    """A parser with the options of a tool that makes a config or reads one."""
    result = argparse.ArgumentParser(
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument(
        "--cfg-options",
        nargs="+",
        action=DictAction,
        metavar="KEY=VALUE",
        help="override entries of the config: model.teacher_ckpt=t.pth a.b='[1, 2]'",
    )
    result.add_argument("--work-dir", help="where logs and results go")
    return result


def load_config(args: argparse.Namespace) -> Config:
    """The config with what the command line overrides."""
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    cfg = read_config(args.config)
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get("work_dir") is None:
        cfg.work_dir = str(Path("work_dirs") / Path(args.config).stem)
    check_work_dir(Path(cfg.work_dir))
    return cfg


def check_work_dir(folder: Path) -> None:
    """Raise ``NotADirectoryError`` or ``PermissionError`` if results could not be written there."""
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(
                f"the work directory {folder} cannot be made, since {path} is a file; "
                "choose another with --work-dir"
            )
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not os.access(existing, os.W_OK):
        raise PermissionError(
            f"the work directory {folder} cannot be written, since {existing} is read-only; "
            "choose another with --work-dir"
        )


def read_config(name: str) -> Config:
    """The config of a file, or of a package by a name like ``mmdet::path/name.py``.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    if "::" in name:
        return Config.fromfile(package_config(name))
    remedy = "recipes lie in configs/, those of a package are named like mmdet::path/name.py"
    require(name, "the config file", remedy)
    return Config.fromfile(name)


def package_config(name: str) -> Path:
    """The file of a package's config, named like ``mmdet::path/name.py``.

    Raises:
        FileNotFoundError: If there is none; tells which are called alike.
    """
    try:
        return Path(Config._get_cfg_path(name, "")[0])
    except (AssertionError, ValueError, ImportError) as error:  # MMEngine's, of wrong names
        raise FileNotFoundError(f"there is no config {name}: {error}") from error
    except FileNotFoundError as error:
        package, _, inside = name.partition("::")
        folder = Path(get_installed_path(MODULE2PACKAGE[package]), ".mim", "configs")
        there = [file.relative_to(folder).as_posix() for file in folder.glob("**/*.py")]
        alike = ", ".join(f"{package}::{each}" for each in get_close_matches(inside, there))
        found = f"called alike: {alike}" if alike else f"those that there are lie in {folder}"
        raise FileNotFoundError(f"there is no config {name}; {found}") from error


def is_distillation(cfg: Config) -> bool:
    """Whether the config's model is a student with a teacher."""
    return "teacher" in cfg.model and "architecture" in cfg.model


def model_config(cfg: Config, part: str) -> ConfigDict:
    """The config of a distillation's ``'student'`` or ``'teacher'`` alone."""
    model = cfg.model.architecture if part == "student" else cfg.model.teacher
    if "cfg_path" in model:  # MMRazor's way to name the model of another config
        from mmengine.hub import get_config

        model = get_config(model.cfg_path).model
    return model


def check_files(cfg: Config, parts: tuple[str, ...]) -> None:
    """Look for the local files that ``parts`` of the config will read.

    Args:
        cfg: The config.
        parts: Any of ``train``, ``val``, ``test`` (their datasets) and ``teacher``.

    Raises:
        FileNotFoundError: Names what is missing, where, and what to do.
    """
    if "teacher" in parts:
        require(cfg.model.get("teacher_ckpt"), "the teacher's checkpoint", TEACHER_REMEDY)
    for part in parts:
        loader = cfg.get(f"{part}_dataloader")
        if loader is not None:
            for dataset in datasets(loader.dataset):
                _check_dataset(dataset, part)
        evaluator = cfg.get(f"{part}_evaluator")
        if isinstance(evaluator, dict) and evaluator.get("ann_file"):
            remedy = f"set {part}_evaluator.ann_file as in {part}_dataloader"
            require(evaluator["ann_file"], f"the {part} evaluator's annotation file", remedy)


TEACHER_REMEDY = "train the teacher first, or set model.teacher_ckpt to its file or URL"


def _check_dataset(dataset: ConfigDict, part: str) -> None:
    if "://" in str(dataset.get("data_root")):
        return
    root = Path(dataset.get("data_root") or "")
    remedy = f"put the dataset there, or set {part}_dataloader.dataset.data_root"
    if root.name == "digits-coco":
        remedy = f"run: python tools/make_digits_coco.py --root {root}"
    if dataset.get("ann_file"):
        require(root / dataset.ann_file, f"the {part} annotation file", remedy)
        _check_annotations(root / dataset.ann_file, part)
    elif dataset.get("data_root"):
        # What mmpretrain looks for, if it may not download it.
        unpacked = {"CIFAR10": "cifar-10-batches-py", "CIFAR100": "cifar-100-python"}
        folder = unpacked.get(str(dataset.get("type")).split(".")[-1], "")
        require(root / folder, f"the {part} data", remedy)
    for prefix in (dataset.get("data_prefix") or {}).values():
        if isinstance(prefix, str) and prefix:
            require(root / prefix, f"the {part} image folder", remedy)


def _check_annotations(path: Path, part: str) -> None:
    """Raise ``ValueError`` if a JSON file is empty, or begins as no object does."""
    with path.open("rb") as file:
        start = file.read(64).lstrip()
    if path.suffix == ".json" and not start.startswith(b"{"):
        raise ValueError(
            f"the {part} annotation file {path}: expected JSON in COCO format, found "
            f"{'nothing' if not start else repr(start[:20])}"
        )


def datasets(dataset: Any) -> Iterator[Any]:
    """The datasets inside wrappers (repeated, concatenated, class-balanced)."""
    inner = dataset.get("dataset") or dataset.get("datasets")
    if inner is None:
        yield dataset
    for each in inner if isinstance(inner, (list, tuple)) else [inner] if inner else []:
        yield from datasets(each)


def require(path: str | Path | None, what: str, remedy: str) -> None:
    """Raise ``FileNotFoundError`` with the remedy unless ``path`` exists (or is None or a URL)."""
    if path is not None and "://" not in str(path) and not Path(path).exists():
        raise FileNotFoundError(f"{what} does not exist: {path}; {remedy}")


def run(main: Callable[[], Any], stopped: str = STARTS_OVER) -> None:
    """Run a tool; an error meant for the person at the terminal ends it with one message.

    Those are the errors that this project raised itself, and files that cannot be read or
    written. Anything else is a fault that needs its traceback. KD_DET_DEBUG=1 shows all.

    Args:
        main: The tool.
        stopped: What is said after Ctrl-C, which ends it with the shell's exit code for that, 130.
    """
    try:
        main()
    except KeyboardInterrupt:
        print(f"\nstopped; {stopped}", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE) or not _is_for_the_user(error):
            raise
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        # A worker's error comes with its traceback; the last line is the error.
        text = str(text).strip().splitlines()[-1] if "failed to load image" in str(text) else text
        notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", ()))
        sys.exit(f"error ({type(error).__name__}): {text}{notes}\n"
                 f"(set {DEBUG_VARIABLE}=1 to see where it was raised)")  # fmt: skip


def _is_for_the_user(error: Exception) -> bool:
    # Not ours, but a plain sentence: mmcv could not read an image.
    if isinstance(error, OSError) or "failed to load image" in str(error):
        return True
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    raised_in = Path(frame.f_code.co_filename).resolve()
    return any(raised_in.is_relative_to(folder) for folder in OWN_CODE)
