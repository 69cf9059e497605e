"""One figure of several sets of photographs: mAP on the images that chose nothing."""

from __future__ import annotations

import argparse
import json
import re
import statistics
from pathlib import Path

from matplotlib.figure import Figure

from kd_det.commands import common

PROG = "python benchmarks/photos_figure.py"
METRIC = "coco/bbox_mAP"


def main() -> None:
    args = parse_args()
    names = ["plain", *args.methods]
    figure = Figure(figsize=(2.4 * len(args.roots), 3.4), layout="constrained")
    panels = figure.subplots(1, len(args.roots), squeeze=False)[0]
    for axes, root in zip(panels, args.roots):
        found = {name: read(root, f"{args.student}_{name}_e{args.epochs}_s*") for name in names}
        (teacher,) = read(root, "teacher")
        axes.axhline(teacher, color="#444444", linestyle="--", linewidth=1)
        for place, name in enumerate(names):
            if found[name]:
                color = "#9a9a9a" if name == "plain" else f"C{place - 1}"
                axes.bar(place, statistics.mean(found[name]), color=color, width=0.75)
                axes.plot([place] * len(found[name]), found[name], "k.", markersize=4)
        axes.set_title(re.sub(r"_\d+$", "", root.name), fontsize=10)
        axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("mAP; dashed: the teacher")
    figure.savefig(args.out, metadata=dict(Date=None))
    print(f"Figure written to {args.out}")


def parse_args() -> argparse.Namespace:
    parser = common.make_parser(PROG, __doc__, "%(prog)s work_dirs/photos_* --methods pkd robust")
    add = parser.add_argument
    add("roots", nargs="+", type=Path, help="folders of the runs of photos.py with --report")
    add("--methods", nargs="+", required=True, help="what is drawn beside the student alone")
    add("--student", default="lite0", help="default: %(default)s")
    add("--epochs", type=int, default=3, help="of students; default: %(default)s")
    add("--out", type=Path, default=Path("docs/results/photos.svg"), help="default: %(default)s")
    return parser.parse_args()


def read(root: Path, pattern: str) -> list[float]:
    """The mAP of each run of this name that was evaluated."""
    files = sorted(root.glob(f"reports/{pattern}/report.json"))
    return [json.loads(file.read_text())[METRIC] for file in files]


if __name__ == "__main__":
    common.run(main)
