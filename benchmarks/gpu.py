"""Tests and measurements of a GPU within minutes; each stage leaves its result at once."""

from __future__ import annotations

import argparse
import functools
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from _bench import gpu_page, report
from _bench.stages import Outcome, Stage, in_time, run_all, write_outcomes
from mmengine.logging import MMLogger

import kd_det  # noqa: F401  (patches the stack before anything else is imported)
from kd_det.commands import common
from kd_det.errors import UserError
from kd_det.files import write_atomically

ROOT = Path(__file__).resolve().parents[1]
# Seconds at most; 450 in all, so that a run ends within 8 minutes, wheels installed.
STAGES = {"tests": 120.0, "steps": 225.0, "prepass": 60.0, "trace": 45.0}
SECONDS = 450.0
# A stage more with --data, and what it may take beyond what the others leave.
TRAINING, TRAINING_SECONDS = "training", 420.0
# Of a stage's seconds, those that pass before it measures.
START = 15.0
# Where tests take the fixture `device`.
TESTS = ("algorithms/test_on_device.py", "losses", "connectors", "compat/test_mmcv.py",
         "test_centers.py", "test_timing.py")  # fmt: skip
TINY_TESTS = ("losses/test_hcl.py",)


def main() -> None:
    args = _parser().parse_args()
    args.out = args.out.absolute()
    args.out.mkdir(parents=True, exist_ok=True)
    args.data = args.data and args.data.absolute()
    os.chdir(ROOT)  # recipes are named by their path in it
    if not args.dry_run and not torch.cuda.is_available():
        raise UserError("torch sees no GPU here; --dry-run runs every stage on the CPU, tiny")
    if args.only:
        return _measure(args)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    # The tests hide all GPUs unless some are named.
    environment.setdefault("CUDA_VISIBLE_DEVICES", "0")
    if args.dry_run:
        environment["CUDA_VISIBLE_DEVICES"] = ""

    if args.data is None:
        args.stages = [name for name in args.stages if name != TRAINING]

    def write(outcomes: list[Outcome]) -> None:
        write_outcomes(args.out / "stages.json", outcomes)
        text = gpu_page.page(args.out, outcomes, args.dry_run)
        write_atomically(args.out / "gpu.md", text.encode())

    seconds = args.seconds or SECONDS + TRAINING_SECONDS * (TRAINING in args.stages)
    outcomes = run_all(_stages(args, seconds), seconds, args.out / "gpu.log", environment, write)
    print((args.out / "gpu.md").read_text(encoding="utf-8"))
    bad = [outcome.name for outcome in outcomes if outcome.state != "done"]
    if bad:
        raise UserError(f"{', '.join(bad)}: not done; see {args.out / 'gpu.log'}")


def _stages(args: argparse.Namespace, seconds: float) -> list[Stage]:
    def measuring(name: str, seconds: float) -> Sequence[str]:
        command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--only", name]
        inside = max(1.0, seconds - START)
        command += ["--out", str(args.out), "--seconds", f"{inside:.0f}"]
        if name == TRAINING:
            command += ["--data", str(args.data), "--epochs", str(args.epochs)]
            command += ["--depth", str(args.depth)]
        return command + ["--dry-run"] * args.dry_run

    def testing(_: float) -> Sequence[str]:
        paths = [f"tests/{name}" for name in (TINY_TESTS if args.dry_run else TESTS)]
        # Without it cuBLAS refuses deterministic mode.
        command = ["env", "CUBLAS_WORKSPACE_CONFIG=:4096:8"]
        command += [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        command += [f"--junitxml={args.out / 'tests.xml'}", *paths]
        return command if args.dry_run else [*command, "-m", "gpu"]

    # Results of an earlier run would pass for those of this one.
    for name in args.stages:
        (args.out / ("tests.xml" if name == "tests" else f"{name}.json")).unlink(missing_ok=True)
    return [
        Stage(
            name,
            STAGES.get(name, seconds),
            testing if name == "tests" else functools.partial(measuring, name),
        )
        for name in args.stages
    ]


def _measure(args: argparse.Namespace) -> None:
    """One stage, in this process."""
    MMLogger.get_instance("benchmark").setLevel("ERROR")  # what models log of themselves
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    device = torch.device("cpu" if args.dry_run else "cuda")
    about = report.machine(device, torch.float32)
    del about["dtype"]  # of the cases
    path = args.out / f"{args.only}.json"
    measures = {"steps": _steps, "prepass": _prepass, "trace": _trace, TRAINING: _training}
    measures[args.only](args, device, about, path)


def _steps(
    args: argparse.Namespace, device: torch.device, about: dict[str, Any], path: Path
) -> None:
    from _bench import gpu_steps

    cases = list(gpu_steps.cases(args.dry_run))
    dtypes = dict.fromkeys(case.dtype for case in cases)
    rates = gpu_steps.product_rates(device, 128 if args.dry_run else 8192, dtypes)
    for dtype, rate in rates.items():
        about[f"product in {str(dtype).replace('torch.', '')}"] = f"{rate / 1e12:.4g} TFLOP/s"
    rows: list[report.Row] = []
    rounds, failed = (1 if args.dry_run else 4), list[str]()
    left_out: list[gpu_steps.Case] = []
    for case in in_time(cases, args.seconds, left_out):
        print(case, flush=True)
        try:
            rows += gpu_steps.measure(case, device, rates[case.dtype], rounds)
        except Exception:  # out of memory, or what no CPU shows: the other cases still count
            traceback.print_exc()
            failed.append(str(case))
            about["failed"] = "; ".join(failed)
        gpu_steps.free(device)
        report.write(path, rows, about)
    if left_out:
        about["left out, for time"] = "; ".join(map(str, left_out))
        report.write(path, rows, about)
    if failed:
        raise UserError(f"failed: {about['failed']}")


def _prepass(
    args: argparse.Namespace, device: torch.device, about: dict[str, Any], path: Path
) -> None:
    from _bench.gpu_steps import TWO_STAGE
    from _bench.pairs import Shape
    from _bench.prepass import runner_on_digits

    from kd_det.datasets import make_digits_coco
    from kd_det.hooks.prepass import PrePass

    shape, images, workers = Shape(TWO_STAGE, (800, 1344), 8), 500, 8
    if args.dry_run:
        shape, images, workers = Shape("configs/digits/{}.py", (64, 64), 2), 4, 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_digits_coco(root / "data", image_size=128, train_images=images, val_images=1)
        prepass = PrePass(runner_on_digits(shape, root, device, workers), "sampled", None)
        start = time.perf_counter()
        prepass.run()
        seconds = time.perf_counter() - start
    case = f"{images} images, {shape.image[0]} x {shape.image[1]}, batch {shape.batch}"
    rate = report.Row("prepass", case, "rate, start of the loader included", images / seconds,
                      "images/s")  # fmt: skip
    report.write(path, [report.Row("prepass", case, "pre-pass", seconds, "s"), rate], about)


def _trace(
    args: argparse.Namespace, device: torch.device, about: dict[str, Any], path: Path
) -> None:
    from _bench import gpu_trace
    from _bench.gpu_steps import TWO_STAGE
    from _bench.pairs import Shape, build_pair, recipe

    shape = Shape(TWO_STAGE, (800, 1344), 8)
    if args.dry_run:
        shape = Shape("configs/digits/{}.py", (64, 64), 1, objects=2)
    step = build_pair(recipe(shape, "review_nd"), shape, device, torch.bfloat16).step
    case = f"review_nd, batch {shape.batch}, bfloat16"
    report.write(path, gpu_trace.measure(case, step, device, 3), about)


def _training(
    args: argparse.Namespace, device: torch.device, about: dict[str, Any], path: Path
) -> None:
    from _bench import gpu_training

    about.update(data=args.data.name, epochs=args.epochs)
    with tempfile.TemporaryDirectory() as folder:
        gpu_training.measure(
            args.data, Path(folder), args.depth, args.epochs, device, args.dry_run,
            lambda rows: report.write(path, rows, about),
        )  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = common.make_parser(
        "python benchmarks/gpu.py",
        __doc__,
        "%(prog)s --out work_dirs/gpu\n  %(prog)s --out /tmp/gpu --dry-run",
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("work_dirs/gpu"), help="folder; default: %(default)s")
    names = [*STAGES, TRAINING]
    add("--stages", nargs="+", choices=names, default=names, metavar="STAGE",
        help=f"of {', '.join(names)}; default: all, {TRAINING} with --data")  # fmt: skip
    add("--seconds", type=float,
        help=f"for all stages; default: {SECONDS:g}, {TRAINING} {TRAINING_SECONDS:g} more",
    )  # fmt: skip
    add("--data", type=Path, metavar="DIR",
        help=f"COCO folder of small photographs: train on it ({TRAINING})")  # fmt: skip
    add("--epochs", type=int, default=24, help="of each training; default: %(default)s")
    add("--depth", type=int, choices=[50, 101], default=50, help="of the teacher's ResNet; 50")
    add("--dry-run", action="store_true", help="every stage on the CPU, tiny")
    add("--only", choices=[name for name in names if name != "tests"],
        help=argparse.SUPPRESS)  # fmt: skip
    return parser


if __name__ == "__main__":
    common.run(main)
