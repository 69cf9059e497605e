"""One HTML file on a distillation: accuracy, cost, curves, embeddings, pictures side by side."""

from __future__ import annotations

import argparse
from pathlib import Path

from kd_det.commands import common
from kd_det.errors import InvalidInputError, MissingPackageError

STOPPED = common.GOES_ON


def execute(args: argparse.Namespace) -> None:
    """Write the report that the command line asks for."""
    from kd_det import config_files

    if args.images < 0:
        raise InvalidInputError(f"expected --images >= 0, found {args.images}")
    for folder in args.runs:
        config_files.require(folder, "the run", "name the work directories of trainings")
    from mmengine.logging import MMLogger

    try:
        from kd_det.report.html_report import compare, write_report
    except ImportError as error:
        raise MissingPackageError(
            f'a report needs {error.name}; install it with: pip install "kd_det[report]"'
        ) from error

    # What MMEngine says of each model it builds is of no interest here.
    MMLogger.get_instance("report", log_level="WARNING")
    comparison = compare(args.runs, args.cfg_options)
    out = args.out or comparison.runs[-1].folder / "report.html"
    numbers = write_report(comparison, out, args.images)
    print(f"Report written to {out}, its numbers to {numbers}")


def make_parser(prog: str) -> argparse.ArgumentParser:
    """The command line's options."""
    parser = common.make_parser(
        prog,
        __doc__,
        "%(prog)s work_dirs/teacher work_dirs/plain work_dirs/kd_nd\n\n"
        "Which run is the teacher, the plain or a distilled student is read from their configs.",
    )
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="work directory of a finished training")
    add("--out", type=Path, help="HTML file (default: report.html in the last distilled run)")
    add("--images", type=int, default=6, help="validation images to show; default: %(default)s")
    common.add_cfg_options(
        parser, "override entries of all configs: val_dataloader.dataset.data_root=data/coco/"
    )
    return parser
