"""Methods side by side: the same student, budget and seeds, each taught by another recipe."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from _pairs import DEFAULT, PAIRS, DensePair
from _runs import METRIC, Data, Study, adapted
from _tables import method_table, provenance
from _trainings import final, run_all, run_and_write
from mmengine.config import Config

from kd_det.commands import common
from kd_det.commands.steps import Step, run_steps
from kd_det.pairing.methods import METHODS, reads_centers
from kd_det.recipes import methods_of
from kd_det.shipped import find_configs

DIGITS = Path("data/digits-coco")
PROG = "python benchmarks/compare.py"
EXAMPLE = """%(prog)s --jobs 2
  %(prog)s --data data/bccd --scale 160 120 --epochs 4 --teacher-epochs 30 --jobs 2
  %(prog)s --pair fcos --data data/masks --weights data/weights --scale 192 192 --methods crosskd

Stopped at any time, the same command goes on where it was; the table holds what is done."""


def main() -> None:
    args = parse_args()
    if args.pair:
        compare_pair(args)
        return
    study = Study(args.root, data_of(args))
    runs = {
        (method, seed): student(study, method, seed, args.init_student)
        for seed in args.seeds
        for method in ("plain", *args.methods)
    }

    def table(results: dict[tuple[str, int], float]) -> str:
        return report(args, study.data, final(study.teacher, METRIC), results, runs.values())

    run_and_write(lambda: study.run(runs.values(), args.jobs), runs, METRIC, table, args.out)


def compare_pair(args: argparse.Namespace) -> None:
    """Compare methods on a pair of dense detectors, or one across kinds."""
    require_digits(args)
    setting = DensePair(
        args.root,
        args.data,
        args.weights or Path(),
        max(args.scale),
        "student",
        args.teacher_epochs,
        args.pair,
        args.weights is None,
    )
    teacher = setting.run_teacher()
    methods = args.methods or setting.fitting(teacher, DEFAULT)
    centers = None
    if any(map(reads_centers, methods)):
        centers = setting.centers(teacher)
    runs = {
        (method, seed): setting.plain(args.epochs, seed)
        if method == "plain"
        else setting.student_of(teacher, centers, method, args.epochs, seed)
        for seed in args.seeds
        for method in ("plain", *methods)
    }

    def run() -> None:
        if centers is not None:
            run_steps([centers])
        run_all(runs.values(), args.jobs)

    def table(results: dict[tuple[str, int], float]) -> str:
        return pair_report(args, methods, final(teacher, METRIC), results, runs.values())

    run_and_write(run, runs, METRIC, table, args.out)


def pair_report(
    args: argparse.Namespace,
    methods: Sequence[str],
    teacher: float,
    results: dict[tuple[str, int], float],
    runs: Iterable[Step],
) -> str:
    """Mean, spread and share of the gap for each method of a pair, in Markdown."""
    start = "random weights" if args.weights is None else "ImageNet weights"
    kinds = " teaches ".join(PAIRS[args.pair])
    return f"""\
COCO mAP on the validation images of `{args.data.name}` at {max(args.scale)} pixels, \
{args.epochs} epochs, seeds {" ".join(map(str, args.seeds))}. {kinds}, narrow, \
from {start}; all students have the same architecture, schedule and batches.
Teacher: {teacher:.3f} ({args.teacher_epochs} epochs, one seed).

{method_table(methods, results, teacher, "mAP")}

{provenance(runs)}
"""


def parse_args() -> argparse.Namespace:
    parser = common.make_parser(PROG, __doc__, EXAMPLE)
    add_arguments(parser, [])
    parser.add_argument(
        "--judge", default="val", metavar="SPLIT", help="split that judges; default: %(default)s"
    )
    parser.add_argument(
        "--init-student-from-teacher",
        "--inherit",
        dest="init_student",
        action="store_true",
        help="let the students of all methods start with the teacher's rpn_head and roi_head",
    )
    parser.add_argument(
        "--pair",
        choices=sorted(PAIRS),
        help="two dense detectors, or a two-stage one that teaches a dense one, instead of the "
        "Faster R-CNNs of configs/digits; --data may be any folder that kd_det reads",
    )
    parser.add_argument(
        "--weights",
        type=Path,
        help="for --pair: folder of lite0.pth and lite2.pth, which photos_weights.py makes "
        "(default: random weights)",
    )
    args = parser.parse_args()
    if args.weights and not args.pair:
        parser.error("--weights is for --pair")
    if args.pair and (args.judge != "val" or args.init_student):
        parser.error("--judge and --init-student-from-teacher are not for --pair")
    if not args.pair:
        args.methods = args.methods or methods_of(find_configs() / "digits" / "frcnn_r50_r18.py")
        return with_places(args, "compare")
    return with_places(args, "compare", f"_{args.pair}" + "_lite" * bool(args.weights))


def student(study: Study, method: str, seed: int, init_student: bool) -> Step:
    """A method's run; with ``init_student`` from a student that starts with the teacher's heads."""
    if (
        not init_student
        or method == "plain"
        or adapted(method, study.data, seed, 1).model.get("init_student_from_teacher")
    ):
        return study.student(method, seed)

    def start_from_heads(cfg: Config) -> None:
        cfg.model.init_student_from_teacher = ["rpn_head", "roi_head"]

    return study.student(method, seed, change=start_from_heads, name=f"{method}_inherit")


def add_arguments(parser: argparse.ArgumentParser, methods: Sequence[str] | None) -> None:
    """Add what all studies of detectors have; ``methods`` are the default, or None is."""
    add = parser.add_argument
    add(
        "--methods", nargs="+", choices=sorted(METHODS), default=methods, metavar="METHOD",
        required=methods is None,
        help=f"of {', '.join(METHODS)}" + ("" if methods is None else "; default: all that fit"),
    )  # fmt: skip
    add("--data", type=Path, default=DIGITS, help="COCO folder; default: %(default)s")
    add(
        "--scale", type=int, nargs=2, default=[128, 128], metavar=("W", "H"),
        help="pixels that images are fitted into; default: 128 128",
    )  # fmt: skip
    add("--epochs", type=int, default=4, help="of students; default: %(default)s")
    add("--teacher-epochs", type=int, default=6, help="of the teacher; default: %(default)s")
    add(
        "--seeds", type=int, nargs="+", default=[0, 1, 2],
        help="of the students' weights and batches; default: 0 1 2",
    )  # fmt: skip
    add("--jobs", type=int, default=1, help="runs side by side; default: 1")
    add(
        "--root", type=Path,
        help="folder of the runs; default: one in work_dirs for each data, scale and teacher",
    )  # fmt: skip
    add("--out", type=Path, help="table; default: one in docs for each data and --epochs")


def with_places(args: argparse.Namespace, table: str, part: str = "") -> argparse.Namespace:
    """Where runs and table go if nobody said so: apart, where they have nothing in common."""
    name = args.data.name + part + (f"_{args.judge}" if args.judge != "val" else "")
    width, height = args.scale
    teacher = f"{width}x{height}_teacher_e{args.teacher_epochs}"
    args.root = args.root or Path("work_dirs") / f"{name}_{teacher}"
    args.out = args.out or Path("docs/results") / f"{table}_{name}_e{args.epochs}.md"
    return args


def require_digits(args: argparse.Namespace) -> None:
    """Make the sample data where they are asked for and not there."""
    if args.data == DIGITS and not args.data.exists():
        from kd_det.datasets import make_digits_coco

        make_digits_coco(args.data)


def data_of(args: argparse.Namespace) -> Data:
    require_digits(args)
    return Data(args.data, tuple(args.scale), args.epochs, args.teacher_epochs, args.judge)


def report(
    args: argparse.Namespace,
    data: Data,
    teacher: float,
    results: dict[tuple[str, int], float],
    runs: Iterable[Step],
) -> str:
    """Mean, spread and share of the gap for each method, in Markdown."""
    start = (
        "the teacher's heads, plain from scratch"
        if args.init_student
        else "scratch, robust ones from the teacher's heads"
    )
    return f"""\
COCO mAP on the {data.judge} images of `{data.root.name}` at {data.scale[0]} x {data.scale[1]} \
pixels, {data.epochs} epochs, seeds {" ".join(map(str, args.seeds))}. All students have the same \
architecture, schedule and batches; they start from {start}. What ND adds is the mean difference \
to the same method and seeds without it.
Teacher: {teacher:.3f} ({data.teacher_epochs} epochs, one seed).

{method_table(args.methods, results, teacher, "mAP")}

{provenance(runs)}
"""


if __name__ == "__main__":
    common.run(main, common.GOES_ON)
