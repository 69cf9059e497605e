"""Measure what distillation costs beyond the student and its teacher."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from _bench import report
from _bench.pairs import SHAPES
from _bench.timing import Budget
from mmengine.config import DictAction
from mmengine.logging import MMLogger

import kd_det  # noqa: F401  (patches the stack before anything else is imported)
from kd_det.commands import common
from kd_det.files import write_atomically

METHODS = ("kd_nd", "review_nd", "review", "robust")
SUITES = ("losses", "prepass", "step", "peer", "scale")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def main() -> None:
    args = _parser().parse_args()
    if args.compare:
        return print(report.comparison(*args.compare))
    if args.threads:
        torch.set_num_threads(args.threads)
    device, dtype = torch.device(args.device), DTYPES[args.dtype]
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = not args.no_tf32
    MMLogger.get_instance("benchmark").setLevel("ERROR")  # what models log of themselves
    budget = Budget(args.seconds, args.rounds, device)
    about = report.machine(device, dtype) | {"speed": args.speed or "as it is"}
    rows: list[report.Row] = []
    for shape in args.shapes:
        for suite in args.suites:
            print(f"{suite}, {shape} ...", flush=True)
            rows += _measure(suite, shape, budget, dtype, args)
            if args.json:  # after each, so that a stop loses one
                report.write(args.json, rows, about)
    text = report.page(rows, about, _command())
    print(text)
    if args.markdown:
        write_atomically(args.markdown, text.encode())
    if args.json:
        print(f"written to {args.json}; two such files: python benchmarks/speed.py --compare A B")


def _command() -> str:
    """The command line, but for the files that it writes."""
    words = sys.argv[1:]
    for option in ("--json", "--markdown"):
        if option in words:
            del words[words.index(option) : words.index(option) + 2]
    return " ".join(["python benchmarks/speed.py", *words])


def _measure(
    suite: str, shape: str, budget: Budget, dtype: torch.dtype, args: argparse.Namespace
) -> list[report.Row]:
    # Here, since they import all of mmdet, which --help and --compare need not wait for.
    from _bench import losses, peer, prepass, scale, step

    options = {"speed": args.speed} if args.speed else {}
    if suite == "step":
        return step.measure(budget, shape, dtype, options, args.methods)
    if suite == "peer":
        return peer.measure(budget, shape, dtype, options)
    return {"losses": losses, "prepass": prepass, "scale": scale}[suite].measure(budget, shape)


def _parser() -> argparse.ArgumentParser:
    parser = common.make_parser(
        "python benchmarks/speed.py",
        __doc__,
        "%(prog)s --suites step peer --json before.json\n"
        "  %(prog)s --shapes coco --speed channels_last=True\n"
        "  %(prog)s --compare before.json after.json",
    )
    add = parser.add_argument
    add("--suites", nargs="+", choices=SUITES, default=SUITES, metavar="SUITE",
        help=f"of {', '.join(SUITES)}; default: all")  # fmt: skip
    add("--shapes", nargs="+", choices=SHAPES, default=["digits"], metavar="SHAPE",
        help=f"of {', '.join(SHAPES)}; default: digits")  # fmt: skip
    add("--methods", nargs="+", default=METHODS, metavar="METHOD",
        help=f"of the suite step; default: {' '.join(METHODS)}")  # fmt: skip
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu",
        help="default: %(default)s")  # fmt: skip
    add("--dtype", choices=DTYPES, default="float32",
        help="of autocast; float32 is none. Default: %(default)s")  # fmt: skip
    add("--no-tf32", action="store_true", help="full float32 products on a GPU")
    add("--threads", type=int, help="of torch on a CPU; default: torch's own")
    add("--speed", nargs="+", action=DictAction, metavar="OPTION=VALUE",
        help="options of model.speed for the suites step and peer")  # fmt: skip
    add("--seconds", type=float, default=20, help="for each case; default: %(default)s")
    add("--rounds", type=int, default=5, help="at least, of each case; default: %(default)s")
    add("--json", type=Path, metavar="FILE", help="write the figures there")
    add("--markdown", type=Path, metavar="FILE", help="write the tables there, in Markdown")
    add("--compare", nargs=2, type=Path, metavar="FILE",
        help="show the figures of two such files side by side, and measure nothing")  # fmt: skip
    return parser


if __name__ == "__main__":
    common.run(main)
