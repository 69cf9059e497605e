"""One HTML file on a distillation: accuracy, cost, curves, embeddings, pictures side by side."""

from __future__ import annotations

import argparse
from pathlib import Path

import kd_det  # noqa: F401  (patches the stack before anything else is imported)
from kd_det import config_files
from kd_det.commands import common
from kd_det.errors import InvalidInputError, MissingPackageError


def main() -> None:
    args = parse_args()
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


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example:\n"
        "  python tools/report.py work_dirs/teacher work_dirs/plain work_dirs/kd_nd\n\n"
        "Which run is the teacher, the plain or a distilled student is read from their configs.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="work directory of a finished training")
    add("--out", type=Path, help="HTML file (default: report.html in the last distilled run)")
    add("--images", type=int, default=6, help="validation images to show; default: %(default)s")
    add(
        "--cfg-options", nargs="+", action=common.DictAction, metavar="KEY=VALUE",
        help="override entries of all configs: val_dataloader.dataset.data_root=data/coco/",
    )  # fmt: skip
    return parser.parse_args()


if __name__ == "__main__":
    common.run(main, common.GOES_ON)
