"""Classification methods side by side, on scikit-learn's digits: minutes on two CPU cores."""

from __future__ import annotations

import argparse
from pathlib import Path

from _tables import method_table, provenance
from _trainings import checkpoint, final, run_all, run_and_write, training
from mmengine.config import Config

from kd_det.commands import common
from kd_det.commands.steps import Step, run_steps
from kd_det.recipes import load_named

CONFIGS = Path("configs/cls/digits")
METHODS = ("kd", "kd_nd", "review", "review_nd", "dkd_nd", "dist_nd")
METRIC = "accuracy/top1"
EXAMPLE = """%(prog)s --jobs 2

Stopped at any time, the same command goes on where it was; the table holds what is done."""


def main() -> None:
    args = parse_args()
    teacher = training(args.root, "teacher", config("teacher", args), [])
    runs = {
        (method, seed): student(method, seed, teacher, args)
        for seed in args.seeds
        for method in ("plain", *args.methods)
    }

    def table(results: dict[tuple[str, int], float]) -> str:
        return report(args, final(teacher, METRIC), results, list(runs.values()))

    run_steps([teacher])
    run_and_write(lambda: run_all(runs.values(), args.jobs), runs, METRIC, table, args.out)


def parse_args() -> argparse.Namespace:
    parser = common.make_parser("python benchmarks/compare_cls.py", __doc__, EXAMPLE)
    add = parser.add_argument
    add(
        "--methods", nargs="+", choices=METHODS, default=METHODS, metavar="METHOD",
        help=f"of {', '.join(METHODS)}; default: all",
    )  # fmt: skip
    add(
        "--seeds", type=int, nargs="+", default=[0, 1, 2],
        help="of the students' weights and batches; default: 0 1 2",
    )  # fmt: skip
    add("--epochs", type=int, default=60, help="of teacher and students; default: %(default)s")
    add("--jobs", type=int, default=2, help="runs side by side; default: %(default)s")
    add("--root", type=Path, help="folder of the runs; default: one in work_dirs for --epochs")
    add("--out", type=Path, help="table; default: in docs if all methods and seeds run, or in root")
    args = parser.parse_args()
    args.root = args.root or Path(f"work_dirs/cls_digits_e{args.epochs}")
    whole = set(args.methods) == set(METHODS) and len(args.seeds) >= 3
    folder = Path("docs/results") if whole else args.root
    args.out = args.out or folder / f"compare_cls_digits_e{args.epochs}.md"
    return args


def config(recipe: str, args: argparse.Namespace, seed: int = 0) -> Config:
    cfg = load_named(CONFIGS / f"{recipe}.py")
    cfg.train_cfg.update(max_epochs=args.epochs, val_interval=args.epochs)
    cfg.param_scheduler.T_max = args.epochs
    cfg.default_hooks.checkpoint.interval = args.epochs
    cfg.randomness = dict(seed=seed)
    return cfg


def student(method: str, seed: int, teacher: Step, args: argparse.Namespace) -> Step:
    cfg = config(method, args, seed)
    inputs = []
    if "teacher" in cfg.model:
        cfg.model.teacher_ckpt = str(checkpoint(teacher))
        inputs = [teacher]
    return training(args.root, f"{method}_s{seed}", cfg, inputs)


def report(
    args: argparse.Namespace,
    teacher: float,
    results: dict[tuple[str, int], float],
    runs: list[Step],
) -> str:
    return f"""\
Top-1 accuracy on the test images of scikit-learn's digits, 20 images of each class for training, \
{args.epochs} epochs, seeds {" ".join(map(str, args.seeds))}. All students have the same \
architecture, schedule and batches. What ND adds is the mean difference to the same method and \
seeds without it.
Teacher: {teacher:.2f} (one seed).

{method_table(args.methods, results, teacher, "accuracy", decimals=2)}

{provenance(runs)}
"""


if __name__ == "__main__":
    common.run(main, common.GOES_ON)
