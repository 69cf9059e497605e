"""Look at a data set before anything is trained: what it holds, and all that is wrong with it.

Reads COCO, YOLO (data.yaml), Pascal VOC, CVAT and LabelMe, as labelling tools export them. Nothing
is written into the folder.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kd_det.commands import common, data_options
from kd_det.errors import InvalidInputError, MissingPackageError

if TYPE_CHECKING:
    from kd_det.datasets.inspection import Inspection

# The table shows so many classes.
SHOWN_CLASSES = 30


def execute(args: argparse.Namespace) -> None:
    """Inspect the data that the command line names, and print or write what was found."""
    from kd_det.datasets.prepared import prepare

    work_dir = Path(args.work_dir or default_work_dir(args.data))
    common.check_work_dir(work_dir)
    tell = (lambda note: None) if args.json else print
    scale = _scale(args.scale)
    data = prepare(Path(args.data), work_dir, scale, tell, **data_options.read_options(args))
    inspection = data.inspection
    files = {name: str(found.path) for name, found in data.annotations.items()}
    if args.json:
        print(json.dumps({**inspection.as_dict(), "annotations": files}, indent=2))
    else:
        _print_tables(inspection)
        for name, path in files.items():
            print(f"{name}: {path}")
    if args.html is not None:
        _write_page(
            inspection, Path(args.html or work_dir / "data" / "data.html"), args.images_shown
        )
    if inspection.errors:
        count = len(inspection.errors)
        kinds = "" if count == 1 else f"{count} kinds of errors, the first is "
        first = inspection.errors[0].sentence
        raise InvalidInputError(f"{args.data} cannot be trained on as it is: {kinds}{first}")


def default_work_dir(data: str) -> Path:
    """Where results on a data set go."""
    path = Path(data).absolute()
    name = path.name if path.is_dir() or not path.suffix else path.parent.name
    return Path("work_dirs") / (name or "data")


def make_parser(prog: str) -> argparse.ArgumentParser:
    """The command line's options."""
    parser = common.make_parser(
        prog, __doc__, "%(prog)s data/fruit --html\n  %(prog)s data/fruit --json > fruit.json"
    )
    add = parser.add_argument
    add("data", help="folder of labelled images, or a file in it that describes them")
    data_options.add(parser)
    add(
        "--scale",
        nargs=2,
        type=int,
        metavar=("LONG", "SHORT"),
        help="sides that images are resized within, to tell which boxes are too small to be seen "
        "(default: 1333 800)",
    )
    add("--json", action="store_true", help="print everything as JSON, all faults with all places")
    add(
        "--html",
        nargs="?",
        const="",
        metavar="FILE",
        help="write a page with pictures and boxes (default: data/data.html in the work directory)",
    )
    add("--images-shown", type=int, default=24, help="pictures of that page; default: %(default)s")
    add("--work-dir", help="where results go (default: work_dirs/NAME)")
    return parser


def _scale(sides: list[int] | None) -> tuple[int, int]:
    from kd_det.datasets.inspection import SCALE

    if sides is None:
        return SCALE
    if min(sides) < 1:
        raise InvalidInputError(f"expected two sides of at least 1 pixel as --scale, found {sides}")
    return max(sides), min(sides)


def _print_tables(inspection: Inspection) -> None:
    """Print what was found, as wide as the terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from kd_det.datasets import summary

    console = Console(highlight=False)
    parts = list(inspection.parts)
    table = Table("", title="Images and boxes", title_justify="left")
    for part in parts:
        table.add_column(part, justify="right")
    for row in summary.contents(inspection):
        table.add_row(*row)
    console.print(table)
    title = f"{len(inspection.classes)} classes: boxes (images)"
    table = Table("class", title=title, title_justify="left")
    for part in parts:
        table.add_column(part, justify="right")
    rows = summary.balance(inspection)
    for name, *counts in rows[:SHOWN_CLASSES]:
        table.add_row(Text(name), *counts)
    if len(rows) > SHOWN_CLASSES:
        table.add_row(f"and {len(rows) - SHOWN_CLASSES} more", *([""] * len(parts)))
    console.print(table)
    if not inspection.faults:
        print("No faults found.")
    for fault in inspection.faults:
        print(f"{fault.severity}: {fault.sentence}")


def _write_page(inspection: Inspection, path: Path, pictures: int) -> None:
    if pictures < 0:
        raise InvalidInputError(f"expected --images-shown >= 0, found {pictures}")
    try:
        from kd_det.report.data_page import write_page
    except ImportError as error:
        raise MissingPackageError(
            f'the page needs {error.name}; install it with: pip install "kd_det[report]"'
        ) from error
    write_page(inspection, path, pictures)
    # Not to stdout, where --json writes.
    print(f"Page written to {path}", file=sys.stderr)
