"""The command lines: ``kd-det train``, ``test``, ``distill`` and the others.

Each is a module with ``make_parser(prog)`` and ``execute(args)``, and with ``STOPPED`` where the
same command does not start over after Ctrl-C. Parsers are made without torch and MMEngine, so that
``--help`` answers at once. No other room imports this one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

# By name: what it does. The module has the same name.
COMMANDS = {
    "train": "train a detector, distilled or plain, from a config",
    "test": "evaluate the student, the teacher or both by the config's metric",
    "data": "look at a folder of labelled images: what it holds, and all faults",
    "distill": "make the config with which one detector teaches another, and train it",
    "centers": "gather a teacher's class centers into a file",
    "export": "export a run's student: plain MMDetection config and weights, or ONNX",
    "report": "write an HTML report that compares runs",
    "doctor": "say what most likely went wrong in a training, with figures",
    "demo": "sample data, teacher, three students and a report, in minutes",
    "digits": "make the sample data, digits-coco",
    "convert_mdistiller": "convert a classification teacher that mdistiller publishes",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``kd-det COMMAND ...``; ``arguments`` are those of the process if not given."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # What follows the command is its own parser's: options may look like ours.
    args = _make_parser().parse_args(arguments[:1])
    run(args.command, arguments[1:])


def run(command: str, arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run one command.

    Args:
        command: A key of :data:`COMMANDS`.
        arguments: What follows it; that of the process if not given.
        prog: How the help calls it.
    """
    module = import_module(f"kd_det.commands.{command}")
    args = module.make_parser(prog or f"kd-det {command}").parse_args(arguments)
    from kd_det.commands import common

    common.run(lambda: module.execute(args), getattr(module, "STOPPED", common.STARTS_OVER))


def _make_parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    parser = _Parser(
        prog="kd-det",
        description="Knowledge distillation for MMDetection.",
        usage="%(prog)s COMMAND [options]",
        epilog="commands:\n"
        + "\n".join(f"  {name:<{width}}  {does}" for name, does in COMMANDS.items())
        + "\n\nexample:\n  %(prog)s train --help",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of those below")
    from kd_det.version import __version__

    parser.add_argument("--version", action="version", version=f"kd_det {__version__}")
    return parser


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """End with the list of commands, which the usage line does not have."""
        self.print_help(sys.stderr)
        self.exit(2, f"\n{self.prog}: error: {message}\n")
