"""From nothing to a distilled detector, on a laptop: data, teacher, two students, a report."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from kd_det.commands import common, results
from kd_det.commands.steps import Step, run_steps
from kd_det.pairing.methods import METHODS, find_configs

DATA = Path("data/digits-coco")
TEACHER_SEED = 0
COMMAND = ("-m", "kd_det")
STOPPED = common.GOES_ON


def execute(args: argparse.Namespace) -> None:
    """Run all steps that are not done yet."""
    print("Each step prints the command that it runs; all of them can be run by hand.")
    root = Path(args.root)
    teacher, centers = teacher_steps(root)
    plain, distilled = student_steps(root, args.method, args.seed, teacher, centers)
    report = results.report_step(root, [teacher, plain, distilled])
    run_steps([*teacher.inputs, *distilled.inputs, plain, distilled, report])
    page, numbers = report.results
    results.print_table(results.metrics_by_role(numbers))
    print(f"\nThe distilled student is {checkpoint(distilled)}. Next: docs/your_detector.md.")
    print(f"Report: {page}, its numbers: {numbers}")


def make_parser(prog: str) -> argparse.ArgumentParser:
    """The command line's options."""
    example = "%(prog)s\n\nStop it at any time: the same command goes on where it was."
    parser = common.make_parser(prog, __doc__, example)
    add = parser.add_argument
    add("--method", choices=sorted(METHODS), default="robust", help="default: %(default)s")
    add("--seed", type=int, default=0, help="of both students (default: 0)")
    add("--root", default="work_dirs/demo", help="default: %(default)s")
    return parser


def _recipe(name: str) -> Path:
    """A file of configs/digits, by the shorter path where commands are run from a clone."""
    path = find_configs() / "digits" / f"{name}.py"
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def teacher_steps(root: Path) -> tuple[Step, Step]:
    """The trained teacher, with the data as its input, and its class centers."""
    data = Step("data", [*COMMAND, "digits", "--root", str(DATA)], root / "data")
    data.results = [DATA / "annotations" / f"instances_{part}.json" for part in ("train", "val")]
    teacher = _train("teacher", _recipe("teacher"), root / "teacher", TEACHER_SEED, [data])
    config = _recipe("review_nd_kd")
    folder = root / "centers"
    centers = Step(
        "centers",
        [*COMMAND, "centers", str(config), "--work-dir", str(folder)]
        + ["--cfg-options", f"model.teacher_ckpt={checkpoint(teacher)}"],
        folder,
        str(config),
        [teacher],
        results=[folder / "class_centers.safetensors"],
    )
    return teacher, centers


def student_steps(
    root: Path, method: str, seed: int, teacher: Step, centers: Step
) -> tuple[Step, Step]:
    """The same student with the same budget and seed, without and with the teacher."""
    plain = _train("plain", _recipe("plain"), root / f"plain_seed{seed}", seed, teacher.inputs)
    from kd_det.recipes import load_recipe

    config = _recipe("frcnn_r50_r18")
    options = [f"model.teacher_ckpt={checkpoint(teacher)}"]
    inputs = [teacher]
    if any(
        hook.type == "kd_det.ClassCenterHook"
        for hook in load_recipe(config, method).get("custom_hooks", [])
    ):
        options.append(f"custom_hooks.0.file={centers.folder / 'class_centers.safetensors'}")
        inputs.append(centers)
    folder = root / f"{method}_seed{seed}"
    distilled = _train("distilled", config, folder, seed, inputs, options)
    distilled.command += ["--method", method]
    return plain, distilled


def _train(
    name: str,
    config: Path,
    folder: Path,
    seed: int,
    inputs: list[Step],
    options: Sequence[str] = (),
) -> Step:
    command = [*COMMAND, "train", str(config), "--work-dir", str(folder), "--cfg-options"]
    command += [f"randomness.seed={seed}", *options]
    step = Step(name, command, folder, str(config), inputs, resume="--resume")
    step.results = [checkpoint(step)]
    return step


def checkpoint(step: Step) -> Path:
    """The last checkpoint of a training step."""
    from mmengine.config import Config

    return step.folder / f"epoch_{Config.fromfile(step.config).train_cfg.max_epochs}.pth"
