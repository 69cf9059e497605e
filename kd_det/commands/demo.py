"""From nothing to distilled detectors, on a laptop: data, teacher, students, a report.

With --data DIR the same for a folder of labelled images: kd-det distill for a common pair.
"""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from kd_det.commands import common, distill, results
from kd_det.commands.steps import Step, run_steps
from kd_det.errors import InvalidInputError
from kd_det.pairing.methods import DEFAULT, reads_centers
from kd_det.shipped import find_configs

DATA = Path("data/digits-coco")
TEACHER_SEED = 0
# How the sample data's student is taught: by the default, and by ReviewKD and ND beside it.
SHOWN = (DEFAULT, "review_nd_fit")
# For data of one's own.
STUDENT = "kd_det::students/frcnn_r18.py"
TEACHER = "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py"
# Of mmdet's model zoo, 37.4 box AP.
COCO_WEIGHTS = "https://download.openmmlab.com/mmdetection/v2.0/faster_rcnn/faster_rcnn_r50_fpn_1x_coco/faster_rcnn_r50_fpn_1x_coco_20200130-047c8118.pth"
COMMAND = ("-m", "kd_det")
STOPPED = common.GOES_ON


def execute(args: argparse.Namespace) -> None:
    """Run all steps that are not done yet."""
    if args.data is not None:
        distill.execute(distill_arguments(args), args.download)
        return
    given = {"--student": args.student, "--teacher": args.teacher, "--epochs": args.epochs}
    given |= {"--teacher-init": args.teacher_init, "--teacher-epochs": args.teacher_epochs}
    given |= {"--download": args.download or None, "--dry-run": args.dry_run or None}
    if names := [name for name, value in given.items() if value is not None]:
        raise InvalidInputError(f"{', '.join(names)}: for data of your own; add --data DIR")
    methods = list(dict.fromkeys(args.method or SHOWN))
    if unknown := [method for method in methods if method not in find_methods()]:
        raise InvalidInputError(
            f"--method {' '.join(unknown)}: not for this pair; available: "
            f"{', '.join(find_methods())}"
        )
    print("Each step prints the command that it runs; all of them can be run by hand.")
    root = Path(args.root or "work_dirs/demo")
    teacher, centers = teacher_steps(root)
    students = student_steps(root, methods, args.seed, teacher, centers)
    report = results.report_step(root, [teacher, *students])
    # Nets this small gain a twentieth from a second thread, and where another program takes a
    # core, threads that wait for each other have taken 50 times as long.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    shared = [step for step in (teacher, centers) if any(step in s.inputs for s in students)]
    run_steps([*teacher.inputs, *shared, *students, report])
    page, numbers = report.results
    results.print_table(numbers)
    folders = ", ".join(str(student.folder) for student in students[1:])
    print(f"\nThe distilled students lie in {folders}. Next: docs/your_detector.md.")
    print(f"Report: {page}, its numbers: {numbers}")


def make_parser(prog: str) -> argparse.ArgumentParser:
    """The command line's options."""
    example = "%(prog)s\n  %(prog)s --data data/fruit --download"
    example += "\n\nStop it at any time: the same command goes on where it was."
    parser = common.make_parser(prog, __doc__, example)
    add = parser.add_argument
    add(
        "--method",
        nargs="+",
        metavar="METHOD",
        help=f"how students are taught: {', '.join(find_methods())} (default: {' '.join(SHOWN)}); "
        f"with --data one that fits its pair (default: {DEFAULT})",
    )
    add("--seed", type=int, default=0, help="of all students (default: 0)")
    add("--root", help="default: work_dirs/demo, or with --data work_dirs/<its name>")
    add("--dry-run", action="store_true", help="with --data: print the plan, train nothing")
    group = parser.add_argument_group("data of your own")
    add = group.add_argument
    add("--data", metavar="DIR", help="folder of labelled images, as for 'kd-det distill'")
    add(
        "--download",
        action="store_true",
        help="allow downloads of weights that are not on this machine; without, they are listed",
    )
    add("--student", help=f"its config (default: {STUDENT})")
    add("--teacher", help=f"its config (default: {TEACHER})")
    add(
        "--teacher-init",
        metavar="FILE",
        help="file or URL of weights from which the teacher starts (default: mmdet's of COCO for "
        "the default teacher)",
    )
    add("--epochs", type=int, help="of the student (default: those of its config)")
    add("--teacher-epochs", type=int, help="of the teacher (default: those of its config)")
    return parser


def distill_arguments(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments of ``kd-det distill`` for data of one's own.

    Raises:
        InvalidInputError: If several methods are named.
    """
    methods = args.method or [DEFAULT]
    if len(methods) > 1:
        raise InvalidInputError(
            f"--method {' '.join(methods)}: with --data it takes one method; others, in another "
            "call, share the teacher"
        )
    teacher_init = args.teacher_init or (None if args.teacher else COCO_WEIGHTS)
    options = {
        "--data": args.data,
        "--method": methods[0],
        "--work-dir": args.root or f"work_dirs/{Path(args.data).resolve().name}",
        "--teacher-init": teacher_init,
        "--epochs": args.epochs,
        "--teacher-epochs": args.teacher_epochs,
    }
    words = [args.student or STUDENT, args.teacher or TEACHER]
    for name, value in options.items():
        words += [name, str(value)] if value is not None else []
    words += ["--cfg-options", f"randomness.seed={args.seed}"]
    if not args.student and not args.teacher:  # made for 16 images of a step, not 2
        words.append("--auto-scale-lr")
    words += ["--dry-run"] if args.dry_run else []
    print("The same by hand:", shlex.join([*common.call_words("distill"), *words]))
    return distill.make_parser("kd-det distill").parse_args(words)


def find_methods() -> list[str]:
    """The methods of the sample data's pair, two Faster R-CNNs."""
    return sorted(path.stem for path in (find_configs() / "_base_" / "methods").glob("*.py"))


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
    root: Path, methods: Sequence[str], seed: int, teacher: Step, centers: Step
) -> list[Step]:
    """The same student with the same budget and seed: without the teacher, then by each method."""
    plain = _train("plain", _recipe("plain"), root / f"plain_seed{seed}", seed, teacher.inputs)
    taught = [_taught(root, method, seed, teacher, centers) for method in methods]
    return [plain, *taught]


def _taught(root: Path, method: str, seed: int, teacher: Step, centers: Step) -> Step:
    config = _recipe("frcnn_r50_r18")
    options = [f"model.teacher_ckpt={checkpoint(teacher)}"]
    inputs = [teacher]
    if reads_centers(method):
        options.append(f"custom_hooks.0.file={centers.folder / 'class_centers.safetensors'}")
        inputs.append(centers)
    folder = root / f"{method}_seed{seed}"
    step = _train(method, config, folder, seed, inputs, options)
    step.command += ["--method", method]
    return step


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
