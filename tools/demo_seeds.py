"""The demo's two students with several seeds, and what the teacher gave them on average."""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
from pathlib import Path

import demo
import torch

from kd_det import cli
from kd_det.files import write_atomically


def main() -> None:
    args = parse_args()
    root = Path(args.root)
    teacher, centers = demo.teacher_steps(root)
    for step in (*teacher.inputs, teacher, centers):
        step.run()
    results = {}
    for seed in args.seeds:
        plain, distilled = demo.student_steps(root, args.method, seed, teacher, centers)
        for step in (plain, distilled):
            step.run()
        results[seed] = demo.evaluate(plain)["bbox_mAP"], demo.evaluate(distilled)["bbox_mAP"]
    text = report(args, demo.evaluate(teacher)["bbox_mAP"], results)
    print(f"\n{text}")
    write_atomically(Path(args.out), text.encode())
    print(f"Table written to {args.out}")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example:\n  python tools/demo_seeds.py --seeds 0 1 2\n\nShares teacher and data "
        "with tools/demo.py; stopped, it goes on where it was.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--method", choices=demo.methods(), default="review_nd_kd", help="recipe")
    parser.add_argument("--root", default="work_dirs/demo", help="default: %(default)s")
    parser.add_argument("--out", default="docs/demo_seeds.md", help="default: %(default)s")
    return parser.parse_args()


def report(
    args: argparse.Namespace, teacher: float, results: dict[int, tuple[float, float]]
) -> str:
    """A table in Markdown: each seed, mean and spread (standard deviation over seeds)."""
    gains = [distilled - plain for plain, distilled in results.values()]
    columns = [*zip(*results.values()), gains]
    rows = [f"| {seed} | {p:.3f} | {d:.3f} | {d - p:+.3f} |" for seed, (p, d) in results.items()]
    means = " | ".join(f"{statistics.mean(c):.3f}" for c in columns)
    rows.append(f"| mean | {means} |")
    if len(results) > 1:
        spreads = " | ".join(f"{statistics.stdev(c):.3f}" for c in columns)
        rows.append(f"| standard deviation | {spreads} |")
    seeds = " ".join(map(str, args.seeds))
    return "\n".join(
        [
            "# The demo with several seeds",
            "",
            "COCO mAP on the 200 validation images of digits-coco. Both students have the same",
            f"seed, budget and start; neither starts from teacher weights. Teacher: {teacher:.3f}",
            "(one seed).",
            "",
            "| seed | plain | distilled | gain |",
            "|---|---|---|---|",
            *rows,
            "",
            f"Command: `python tools/demo_seeds.py --method {args.method} --seeds {seeds}`, "
            f"commit {_commit()}.",
            "",
            f"Machine: {torch.get_num_threads()} CPU threads, {platform.machine()}, Python "
            f"{platform.python_version()}, torch {torch.__version__}.",
            "",
        ]
    )


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    cli.run(main)
