"""One verdict on a training, finished or not: what most likely went wrong, with figures.

Looks at the teacher's accuracy, the size, trend and share of each distillation loss, losses that
stay 0, classes without a center, NaN steps, and the learning rate against the batch size.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from kd_det.commands import common


def execute(args: argparse.Namespace) -> None:
    """Print the verdict."""
    from kd_det import config_files
    from kd_det.report.doctor import diagnose

    config_files.require(args.run, "the run", "name the work directory of a training")
    diagnosis = diagnose(args.run)
    if args.json:
        print(json.dumps(diagnosis.as_dict(), indent=2))
    else:
        print(diagnosis.describe())


def make_parser(prog: str) -> argparse.ArgumentParser:
    """The command line's options."""
    parser = common.make_parser(prog, __doc__, "%(prog)s work_dirs/my_run")
    parser.add_argument("run", type=Path, metavar="RUN", help="work directory of a training")
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    return parser
