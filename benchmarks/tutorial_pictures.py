"""The table and the pictures of docs/tutorial.md, from the work directories of its trainings.

No photograph is shown, since their licences are others: detections are drawn on an empty canvas.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from mmengine.config import Config

from kd_det.commands import common
from kd_det.datasets import dataset_config
from kd_det.export.onnx.file import require
from kd_det.export.onnx.runtime import OnnxSession, whole
from kd_det.export.onnx.validation import Validation
from kd_det.export.plain_config import plain_config
from kd_det.files import write_atomically
from kd_det.report.comparison import ROLE_COLORS, Comparison
from kd_det.report.data_page import COLORS as PART_COLORS
from kd_det.report.figures import Panel, Show, counts, curves, svg
from kd_det.report.html_report import compare
from kd_det.report.pictures import TRUTH, Box, Picture, pictures
from kd_det.report.runs import Run
from kd_det.timing import one_round

RUNS = ("teacher", "alone", "distilled")
BOX_COLORS = {None: "#555555", True: "#12986a", False: "#d9480f"}
# A row of the tutorial: a page's width, inches.
WIDTH = 10.0
TIMED_IMAGES, ROUNDS = 20, 10
# Classes are written at boxes with no more objects than these.
NAMED = 3


@dataclass(frozen=True)
class Set:
    """What came out for one set of photographs.

    Args:
        name: Of its work directory.
        comparison: Its teacher and both students.
        seconds: Of an image, by the ONNX files of teacher and student.
    """

    name: str
    comparison: Comparison
    seconds: tuple[float, float]

    def run(self, role: str) -> Run:
        found = self.comparison.best(role)
        assert found is not None
        return found


def main() -> None:
    args = parse_args()
    sets = [read(folder) for folder in args.folders]
    for name, data in draw(sets).items():
        path = args.out / f"tutorial_{name}.svg"
        data = re.sub(rb"<!--.*?-->\n|^ +", b"", data, flags=re.M)  # a tenth of it
        write_atomically(path, data)
        print(f"{path}: {len(data) / 1000:.0f} kB")
    print(table(sets))


def draw(sets: Sequence[Set]) -> dict[str, bytes]:
    """The pictures as SVG, by name."""
    high = 2.7
    chosen = [example(each.comparison) for each in sets]
    rows = [detections(*each) for each in zip(sets, chosen)]
    columns = len(rows[0])
    shapes = [picture.height / picture.width for picture in chosen]
    height = sum(shapes) * WIDTH / columns + 0.35 * len(rows)
    return {
        "classes": svg([balance(each) for each in sets], WIDTH, high),
        "curves": svg([learning(each) for each in sets], WIDTH, high),
        "latency": svg([latency(sets)], WIDTH / 2, high * 0.75),
        "detections": svg([panel for row in rows for panel in row], WIDTH, height, columns, shapes),
    }


def parse_args() -> argparse.Namespace:
    example = "%(prog)s work_dirs/cards work_dirs/facemask work_dirs/cavity"
    parser = common.make_parser("python benchmarks/tutorial_pictures.py", __doc__, example)
    add = parser.add_argument
    add("folders", type=Path, nargs="+", help="work directories, with teacher.onnx in each")
    add("--out", type=Path, default=Path("docs/results"), help="default: %(default)s")
    return parser.parse_args()


def read(folder: Path) -> Set:
    comparison = compare([folder / name for name in RUNS])
    files = (folder / "teacher.onnx", folder / "distilled" / "student_best.onnx")
    return Set(folder.name, comparison, measure(comparison.validation.cfg, files))


def measure(cfg: Config, files: Sequence[Path]) -> tuple[float, float]:
    """Seconds of teacher and student for an image, on one thread, in turns.

    Medians over validation images of the fastest of several rounds, which other work disturbs
    least.
    """
    runtime = require("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    found = [runtime.InferenceSession(str(path), options) for path in files]
    validation = Validation(plain_config(cfg).cfg, None, 1)
    # Both were trained on images of one size.
    inputs = list(validation.inputs(OnnxSession(files[0]).metadata, TIMED_IMAGES))
    fastest = []
    for images, _ in inputs:
        feed = {"images": images, "sizes": whole(images)}
        calls = [partial(session.run, None, feed) for session in found]
        rounds = [one_round(calls, "cpu", turn) for turn in range(ROUNDS)]
        fastest.append([*map(min, zip(*rounds))])
    teacher, student = map(statistics.median, zip(*fastest))
    return teacher, student


def balance(found: Set) -> Panel:
    """Boxes of each class, as a share of its part's."""
    cfg = found.comparison.validation.cfg
    series: dict[str, list[float]] = {}
    for part in ("train", "val"):
        numbers = count_boxes(cfg[f"{part}_dataloader"].dataset)
        names = list(numbers)
        series[f"{part}, {sum(numbers.values())}"] = [*numbers.values()]
    colors = dict(zip(series, (PART_COLORS[part] for part in ("train", "val"))))
    return counts(names, series, colors, f"{found.name}: boxes")


def count_boxes(dataset: Any) -> dict[str, int]:
    """Boxes by class, all classes."""
    (source,) = dataset_config.unwrap(dataset)
    path = Path(source.get("data_root") or "", source["ann_file"])
    data = json.loads(path.read_text(encoding="utf-8"))
    names = {category["id"]: category["name"] for category in data["categories"]}
    counted = Counter(names[box["category_id"]] for box in data["annotations"])
    return {name: counted[name] for name in source["metainfo"]["classes"]}


def learning(found: Set) -> Panel:
    """Curves of both students, and the teacher as a line."""
    metric = found.comparison.metric
    runs = [found.run("plain"), found.run("distilled")]
    series = {run.name: run.scalars[metric] for run in runs}
    colors = found.comparison.colors
    panel = curves(series, colors, f"{found.name}: epoch", "mAP")
    level = found.comparison.value(found.run("teacher"))

    def draw(axes: Axes, show: Show) -> None:
        axes.axhline(level, color=ROLE_COLORS["teacher"], linestyle="--", label="teacher")
        axes.set_ylim(0, level * 1.08)
        panel.draw(axes, show)

    return Panel(draw, panel.texts)


def latency(sets: Sequence[Set]) -> Panel:
    times = zip(*([1000 * seconds for seconds in each.seconds] for each in sets))
    series = dict(zip(("teacher", "student"), map(list, times)))
    colors = {"teacher": ROLE_COLORS["teacher"], "student": ROLE_COLORS["distilled"]}
    return counts([each.name for each in sets], series, colors, "ms for an image, in ONNX")


def example(comparison: Comparison) -> Picture:
    """The photograph with the median gain in F1, of those on which the students differ."""
    compared = [comparison.best("plain"), comparison.best("distilled")]
    names = [run.name for run in compared if run is not None]
    shown = {name: comparison.evaluations[name] for name in names}
    number = len(comparison.validation.dataset)
    found, _ = pictures(comparison.validation, shown, (names[0], names[1]), number)
    found.sort(key=lambda picture: picture.f1[names[1]] - picture.f1[names[0]])
    return found[len(found) // 2]


def detections(found: Set, picture: Picture) -> list[Panel]:
    """The truth and both students, beside each other; classes are named where there is room."""
    named = len(picture.columns[TRUTH]) <= NAMED
    panels = []
    for column, boxes in picture.columns.items():
        title = f"{found.name}: {column}"
        texts = [title, *(box.text for box in boxes)]
        panels.append(Panel(partial(draw_boxes, picture, boxes, title, named), texts))
    return panels


def draw_boxes(
    picture: Picture, boxes: Sequence[Box], title: str, named: bool, axes: Axes, show: Show
) -> None:
    axes.set_xlim(0, picture.width)
    axes.set_ylim(picture.height, 0)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color("#cccccc")
    axes.set_title(show(title), fontsize=10)
    for box in boxes:
        color = BOX_COLORS[box.right]
        style = "--" if box.right is False else "-"
        shape = Rectangle((box.x, box.y), box.width, box.height, fill=False, color=color, ls=style)
        axes.add_patch(shape).set_clip_on(False)  # which would be written for each
        if named:
            axes.text(box.x + 4, box.y + 4, show(box.text), color=color, fontsize=8, va="top")


def table(sets: Sequence[Set]) -> str:
    """mAP of the teacher's best epoch and the students' last ones, and latency, in Markdown."""
    lines = ["| | teacher | alone | distilled | teacher, ms | student, ms |", "|---" * 6 + "|"]
    for each in sets:
        roles = [each.run(role) for role in ("teacher", "plain", "distilled")]
        values = [each.comparison.evaluations[run.name].metrics for run in roles]
        cells = [f"{v['coco/bbox_mAP']:.3f} ({v['coco/bbox_mAP_50']:.3f})" for v in values]
        cells += [f"{1000 * seconds:.1f}" for seconds in each.seconds]
        lines.append(f"| {each.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    common.run(main)
