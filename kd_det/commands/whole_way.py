"""From labelled images to a distilled student: the teacher's training, both students', a report.

What ``kd-det distill`` does where no trained teacher is given. Each training is a step
(:mod:`kd_det.commands.steps`): it is done once, goes on where it was stopped, and is made again
when its config, its data or what it starts from has changed.
"""

from __future__ import annotations

import argparse
import copy
import gc
import io
import shlex
import tempfile
from contextlib import AbstractContextManager, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kd_det.commands import common, plan, results
from kd_det.commands import train as training
from kd_det.commands.steps import Step, run_steps
from kd_det.commands.trainings import Training, make_training
from kd_det.errors import InvalidInputError

if TYPE_CHECKING:
    from kd_det.datasets.prepared import PreparedData
    from kd_det.pairing.compose import Pairing
    from kd_det.pairing.teacher_training import TeacherTraining

REPORT = ("jinja2", "matplotlib")
TIMED = 3


def is_asked_for(args: argparse.Namespace) -> bool:
    """Whether more is to be trained than a student with a given teacher.

    Raises:
        InvalidInputError: If options contradict each other.
    """
    if args.teacher_ckpt is not None:
        given = {"--teacher-init": args.teacher_init, "--teacher-epochs": args.teacher_epochs}
        names = [name for name, value in given.items() if value is not None]
        if names:
            raise InvalidInputError(
                f"{', '.join(names)}: for a teacher that is trained here; leave --teacher-ckpt out"
            )
    elif "model.teacher_ckpt" in (args.cfg_options or {}):
        raise InvalidInputError("model.teacher_ckpt: give it as --teacher-ckpt")
    asked = args.teacher_ckpt is None or bool(args.baseline)
    if asked and (args.resume not in (None, "auto") or args.allow_changes):
        raise InvalidInputError(
            "--resume CHECKPOINT, --allow-changes: for one training, and several are asked for; "
            "the same command goes on where it was, and trains again what has changed"
        )
    return asked


def default_work_dir(args: argparse.Namespace) -> str:
    """Where all of it goes: one folder for all methods, which share the teacher."""
    from kd_det.pairing.detectors import short_name

    return f"work_dirs/{short_name(args.teacher)}_{short_name(args.student)}"


def execute(
    args: argparse.Namespace, data: str | PreparedData | None, may_download: bool = True
) -> None:
    """Print the plan, and run what is not done yet.

    Args:
        args: Those of ``kd-det distill``.
        data: What ``--data`` names.
        may_download: Whether weights may be downloaded that the configs name.

    Raises:
        InvalidInputError: If weights are not there and may not be downloaded; names them.
    """
    from rich.console import Console

    root = Path(args.work_dir)
    common.check_work_dir(root / "config")
    # pycocotools prints a line for each step of reading a file.
    with Console(stderr=True).status("Reading both detectors and the data"), _silent():
        teacher, pairing = _read(args, data, root)
    urls = _find_downloads(teacher, pairing)
    if urls and not may_download:
        raise InvalidInputError(
            f"{' and '.join(urls)} would be downloaded; allow it with --download, or name a file "
            "with --teacher-init and configs of your own with --student and --teacher"
        )
    print(pairing.describe())
    if teacher is not None:
        print(f"\n{teacher.describe()}")
        if teacher.start is not None:
            _print_start(teacher, args.dry_run and teacher.start in urls)
    if urls:
        print("\nDownloaded when training begins:", *urls, sep="\n  ")
    steps = _write(args, data, root, teacher, pairing)
    timings = _try_out(args, steps)
    report = _report(root, [part.step for part in steps])
    plan.show(root, steps, timings, report)
    if args.dry_run:
        print("\nEverything fits, and nothing was trained. The same command without --dry-run "
              "does it.")  # fmt: skip
        return
    run_steps([*(part.step for part in steps), *([report] if report else [])])
    _print_result(root, steps[-1].step, report)


def _silent() -> AbstractContextManager[object]:
    return redirect_stdout(io.StringIO())


def read_pair(args: argparse.Namespace, data: Any, work_dir: str | None) -> Pairing:
    """The pair that the command line asks for."""
    from kd_det.pairing.compose import pair

    return pair(
        args.student,
        args.teacher,
        args.method,
        teacher_ckpt=args.teacher_ckpt,
        data=data,
        work_dir=work_dir,
        epochs=args.epochs,
        batch_size=args.batch_size,
        cfg_options=args.cfg_options,
    )


def _read(
    args: argparse.Namespace, data: Any, root: Path
) -> tuple[TeacherTraining | None, Pairing]:
    """The configs of all trainings, with their own work directories."""
    from kd_det.pairing.teacher_training import teacher_training

    pairing = read_pair(args, data, str(root))  # first: a refusal of it names both sides
    teacher = None
    if args.teacher_ckpt is None:
        teacher = teacher_training(
            args.teacher,
            args.student,
            data,
            str(root / "teacher"),
            start=args.teacher_init,
            epochs=args.teacher_epochs,
            batch_size=args.batch_size,
        )
    pairing.cfg.work_dir, pairing.alone.work_dir = str(root / "distilled"), str(root / "alone")
    if teacher is not None:
        pairing.cfg.model.teacher_ckpt = str(teacher.checkpoint)
    return teacher, pairing


def _find_downloads(teacher: TeacherTraining | None, pairing: Pairing) -> list[str]:
    """The URLs of weights that are not on this machine yet."""
    from kd_det.pairing.start_weights import find_downloads

    parts = [pairing.alone.model, *([teacher.cfg.model] if teacher is not None else [])]
    urls = [url for part in parts for url in find_downloads(part.to_dict())]
    return list(dict.fromkeys(urls))


def _print_start(teacher: TeacherTraining, later: bool) -> None:
    """Print what the teacher gets of the weights from which it starts; downloads them."""
    from kd_det.pairing.start_weights import loaded_table

    if later:
        print(f"\nWhat the teacher gets of {teacher.start} is told when that is downloaded.")
        return
    table = loaded_table(teacher.detector.model, str(teacher.start), "teacher")
    print(f"\nOf {teacher.start} the teacher gets:\n{table}")


def _write(
    args: argparse.Namespace,
    data: Any,
    root: Path,
    teacher: TeacherTraining | None,
    pairing: Pairing,
) -> list[Training]:
    """Write the configs, and make the step of each training, in their order."""
    config = root / "config"
    pairing.write(config / "distill.py")
    found: list[Training] = []
    if teacher is not None:
        teacher.write(config / "teacher.py")
        weights = [teacher.checkpoint]
        found.append(make_training(args, data, config / "teacher.py", teacher.cfg, [], weights))
    inputs = [part.step for part in found]
    if args.baseline is None or args.baseline:
        found.append(make_training(args, data, config / "alone.py", pairing.alone, []))
    found.append(make_training(args, data, config / "distill.py", pairing.cfg, inputs))
    return found


def _try_out(args: argparse.Namespace, steps: list[Training]) -> dict[str, Any]:
    """Build all that is not trained yet and time a few iterations, by the steps' names."""
    import torch
    from rich.console import Console

    from kd_det.pairing.dry_run import dry_run

    given = argparse.Namespace(
        amp=args.amp, auto_scale_lr=args.auto_scale_lr, resume=None, allow_changes=False
    )
    timings = {}
    with tempfile.TemporaryDirectory(prefix="kd_det_plan_") as folder:
        weights = str(Path(folder, "teacher.pth"))
        for part in steps:
            if part.step.done:
                continue
            cfg = copy.deepcopy(part.cfg)
            if Path(weights).exists() and "teacher_ckpt" in cfg.model:
                cfg.model.teacher_ckpt = weights  # the real ones are to be trained
            told = f"Building the training '{part.step.name}', and timing {TIMED} iterations"
            with Console(stderr=True).status(told), _silent():
                training.prepare(cfg, given, check_data=True)
                out = weights if part.step.name == "teacher" else None
                timings[part.step.name] = dry_run(cfg, out, TIMED)
    # Trainings are other processes, and this one holds no memory of a GPU meanwhile.
    gc.collect()
    torch.cuda.empty_cache()
    return timings


def _report(root: Path, runs: list[Step]) -> Step | None:
    """The report's step; None where its packages are missing."""
    if not all(map(find_spec, REPORT)):
        return None
    return results.report_step(root, runs)


def _print_result(root: Path, distilled: Step, report: Step | None) -> None:
    if report is not None:
        page, numbers = report.results
        results.print_table(numbers)
        print(f"\nReport: {page}, its numbers: {numbers}")
    words = [*common.call_words("export"), str(distilled.folder), "--checkpoint", "best"]
    print(f"The distilled student lies in {distilled.folder}. To deploy it:\n"
          f"  {shlex.join([*words, '--format', 'onnx'])}")  # fmt: skip
