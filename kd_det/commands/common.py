"""Shared by the command lines: options, early checks, errors in one sentence."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kd_det.commands.cfg_options import CfgOptions
from kd_det.errors import InvalidInputError, UserError

if TYPE_CHECKING:
    from mmengine.config import Config

DEBUG_VARIABLE = "KD_DET_DEBUG"
# How to go on after Ctrl-C.
STARTS_OVER = "the same command starts over"
GOES_ON = "the same command goes on where it was"
GOES_ON_WITH_RESUME = (
    "the same command with --resume goes on from the last checkpoint (from the beginning, "
    "without one)"
)
# The files in tools/ that do not have their command's name.
SCRIPTS = {
    "centers": "collect_centers",
    "export": "export_student",
    "digits": "make_digits_coco",
}


def make_parser(prog: str, description: str | None, example: str) -> argparse.ArgumentParser:
    """A parser whose help ends with an example.

    Args:
        prog: The words that call it.
        description: What it does.
        example: Commands; ``%(prog)s`` stands for ``prog``.
    """
    return argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of every command on a config; distill, which makes one, has its own."""
    add = parser.add_argument
    add("config", help="config file, or a config of a package (kd_det::..., mmdet::...)")
    add(
        "--method",
        help="method by which a pair's config teaches, such as kd_nd (default: the config's own)",
    )
    add(
        "--launcher",
        choices=["none", "pytorch", "slurm", "mpi"],
        default="none",
        help="how several processes were started (docs/distributed.md)",
    )
    # torchrun of old passes it; new versions set LOCAL_RANK by themselves.
    add("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    add_run_options(parser)


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options`` and ``--work-dir``."""
    add_cfg_options(parser, "override entries of the config: model.teacher_ckpt=t.pth a.b='[1, 2]'")
    parser.add_argument("--work-dir", help="where logs and results go")


def add_cfg_options(parser: argparse.ArgumentParser, text: str) -> None:
    """Add ``--cfg-options``, explained by ``text``."""
    parser.add_argument(
        "--cfg-options", nargs="+", action=CfgOptions, metavar="KEY=VALUE", help=text
    )


def call_words(command: str) -> list[str]:
    """The words that call another command as this one was called."""
    script = Path(sys.argv[0])
    if script.parent.name == "tools" and script.parent.parent.name != ".mim":  # not mim's call
        return ["python", f"tools/{SCRIPTS.get(command, command)}.py"]
    if script.name == "__main__.py":
        return ["python", "-m", "kd_det", command]
    return ["kd-det", command]


def load_config(args: argparse.Namespace) -> Config:
    """Read the config, with the overrides of the command line."""
    from kd_det import config_files, recipes
    from kd_det.config_options import merge_options

    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    cfg = config_files.read_config(args.config, getattr(args, "method", None))
    merge_options(cfg, args.cfg_options)
    config_files.drop_hooks_of_none(cfg)
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get("work_dir") is None:
        cfg.work_dir = f"work_dirs/{recipes.run_name(args.config, cfg)}"
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


def run(main: Callable[[], Any], stopped: str = STARTS_OVER) -> None:
    """Run a command; an error meant for the person at the terminal ends it with one message.

    Those are :class:`kd_det.errors.UserError` and files that cannot be read or written. Anything
    else is a fault that keeps its traceback. KD_DET_DEBUG=1 shows all tracebacks.

    Args:
        main: The command.
        stopped: The hint after Ctrl-C, which ends it with the shell's exit code for that, 130.
    """
    for stream in (sys.stdout, sys.stderr):
        # A class name that the locale's encoding lacks must not end a training.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        _use_utf8()
        from kd_det import compat  # after parsing: it waits for torch

        compat.activate()
        main()
    except KeyboardInterrupt:
        print(f"\nstopped; {stopped}", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        # mmcv raises a plain ValueError where it cannot read an image.
        expected = isinstance(error, (UserError, OSError)) or "failed to load image" in str(error)
        if os.environ.get(DEBUG_VARIABLE) or not expected:
            raise
        # A worker's error comes with its traceback; the last line is the error.
        text = str(error).strip()
        text = text.splitlines()[-1] if "failed to load image" in text else text
        notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", ()))
        sys.exit(f"error ({type(error).__name__}): {text}{notes}\n"
                 f"(set {DEBUG_VARIABLE}=1 to see where it was raised)")  # fmt: skip


def _use_utf8() -> None:
    """Start again in UTF-8 mode if the locale's encoding cannot express the names of files.

    That is ASCII, in which no other letter has a code, or an argument in another encoding.

    Raises:
        InvalidInputError: If an argument is no UTF-8 either.
    """
    foreign = [word for word in sys.argv[1:] if not _is_text(word)]
    if sys.flags.utf8_mode:
        if foreign:
            raise InvalidInputError(f"expected arguments in UTF-8, found {foreign[0]!a}")
    elif os.name == "posix" and (foreign or sys.getfilesystemencoding() == "ascii"):
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *_own_arguments()])


def _is_text(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def _own_arguments() -> list[str]:
    """What follows the interpreter on the command line of this process."""
    if hasattr(sys, "orig_argv"):  # new in Python 3.10
        return sys.orig_argv[1:]
    main = sys.modules["__main__"]
    module = main.__spec__ and main.__spec__.name.removesuffix(".__main__")
    return [*(["-m", module] if module else sys.argv[:1]), *sys.argv[1:]]
