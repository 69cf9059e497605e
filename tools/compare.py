"""Methods side by side: the same student, budget and seeds, each taught by another recipe."""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
from pathlib import Path

import torch
from _runs import Data, Study, final_map, recipes
from _steps import Step
from mmengine.config import Config

from kd_det import cli
from kd_det.files import write_atomically

DIGITS = Path("data/digits-coco")


def main() -> None:
    args = parse_args()
    study = Study(Path(args.root), data_of(args))
    runs = {
        (method, seed): student(study, method, seed, args.inherit)
        for seed in args.seeds
        for method in ("plain", *args.methods)
    }
    try:
        study.run(runs.values(), args.jobs)
    finally:
        done = {key: final_map(step) for key, step in runs.items() if step.done}
        if done:
            text = report(args, study.data, final_map(study.teacher), done)
            write_atomically(Path(args.out), text.encode())
            print(f"\n{text}\nTable written to {args.out}")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="examples:\n  python tools/compare.py --jobs 2\n  python tools/compare.py --data "
        "data/bccd --scale 160 120 --epochs 20 --teacher-epochs 30 --root work_dirs/bccd\n\n"
        "Stopped at any time, the same command goes on where it was; the table holds what is done.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_data_arguments(parser)
    parser.add_argument(
        "--methods", nargs="+", choices=recipes(), default=recipes(), metavar="METHOD",
        help=f"of {', '.join(recipes())}; default: all",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--inherit",
        action="store_true",
        help="let the students of all methods start with the teacher's rpn_head and roi_head",
    )
    parser.add_argument("--out", default="docs/compare.md", help="default: %(default)s")
    return parser.parse_args()


def student(study: Study, method: str, seed: int, inherit: bool) -> Step:
    """A method's run; with ``inherit`` from a student that starts with the teacher's heads."""
    if not inherit or method == "plain":
        return study.student(method, seed)
    return study.student(method, seed, change=start_from_heads, name=f"{method}_inherit")


def start_from_heads(cfg: Config) -> None:
    cfg.model.inherit = ["rpn_head", "roi_head"]


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", default=str(DIGITS), help="COCO folder; default: %(default)s")
    parser.add_argument("--scale", type=int, nargs=2, default=[128, 128], metavar=("W", "H"))
    parser.add_argument("--epochs", type=int, default=4, help="of students; default: %(default)s")
    parser.add_argument(
        "--teacher-epochs", type=int, default=6, help="of the teacher; default: %(default)s"
    )
    parser.add_argument("--root", default="work_dirs/compare", help="default: %(default)s")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side; default: 1")


def data_of(args: argparse.Namespace) -> Data:
    root = Path(args.data)
    if root == DIGITS and not root.exists():
        from kd_det.datasets import make_digits_coco

        make_digits_coco(root)
    return Data(root, tuple(args.scale), args.epochs, args.teacher_epochs)


def report(
    args: argparse.Namespace, data: Data, teacher: float, results: dict[tuple[str, int], float]
) -> str:
    """Mean, spread and share of the gap for each method, in Markdown."""
    by_method: dict[str, list[float]] = {}
    for (method, _), value in results.items():
        by_method.setdefault(method, []).append(value)
    plain = statistics.mean(by_method["plain"]) if "plain" in by_method else float("nan")
    rows = []
    for method in ("plain", *args.methods):
        values = by_method.get(method)
        if values is None:
            continue
        mean = statistics.mean(values)
        spread = f"{statistics.stdev(values):.3f}" if len(values) > 1 else ""
        gap = teacher - plain
        share = f"{(mean - plain) / gap:.0%}" if method != "plain" and gap > 0 else ""
        each = " ".join(f"{value:.3f}" for value in values)
        rows.append(f"| {method} | {mean:.3f} | {spread} | {share} | {each} |")
    seeds = " ".join(map(str, args.seeds))
    start = (
        "the teacher's heads, plain from scratch"
        if args.inherit
        else "scratch, robust ones from the teacher's heads"
    )
    return "\n".join(
        [
            f"COCO mAP on the validation images of `{data.root.name}` at {data.scale[0]} x "
            f"{data.scale[1]} pixels, {data.epochs} epochs, seeds {seeds}. All students are the "
            f"same and see the same batches; they start from {start}.",
            f"Teacher: {teacher:.3f} ({data.teacher_epochs} epochs, one seed).",
            "",
            "| method | mean mAP | standard deviation | of the gap to the teacher | each seed |",
            "|---|---|---|---|---|",
            *rows,
            "",
            provenance(),
            "",
        ]
    )


def provenance() -> str:
    """Commit and machine."""
    done = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False
    )
    return (
        f"Commit {done.stdout.strip() or 'unknown'}, {platform.machine()}, Python "
        f"{platform.python_version()}, torch {torch.__version__}."
    )


if __name__ == "__main__":
    cli.run(main)
