"""ReviewKD and the ND loss on photographs: what their parts bring, one by one.

Faster R-CNNs with ImageNet weights on any folder of photographs that kd_det reads. Methods are
chosen by held-out training images; ``--report`` evaluates on a part that chose nothing.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from _photos import DETECTORS, Setting, report_step
from _photos_candidates import CANDIDATES
from _tables import Results, method_table, provenance
from _trainings import final, run_all

from kd_det.commands import common
from kd_det.commands.steps import Step, run_steps
from kd_det.files import write_atomically
from kd_det.pairing.methods import METHODS

PROG = "python benchmarks/photos.py"
EXAMPLE = """%(prog)s --data data/cards --weights data/weights --methods robust review_nd

Stopped at any time, the same command goes on where it was; the table holds what is done. The
weights: benchmarks/photos_weights.py."""
METRICS = {"mAP": "coco/bbox_mAP", "mAP 50": "coco/bbox_mAP_50", "mAP 75": "coco/bbox_mAP_75"}


def main() -> None:
    args = parse_args()
    setting = setting_of(args)
    teacher = setting.run_teacher()
    centers = setting.centers(teacher)
    names = [(name, seed) for seed in args.seeds for name in (*args.methods, "plain")]
    runs = {
        (name, seed): student(setting, teacher, centers, name, args.epochs, seed)
        for name, seed in names
    }
    try:
        if any(centers in run.inputs for run in runs.values()):
            run_steps([centers])
        steps = list(runs.values())
        run_all(steps, args.jobs)
        if args.report:
            run_all([report_step(step) for step in (teacher, *steps)], args.jobs)
    finally:
        text = tables(args, setting, teacher, runs)
        write_atomically(args.out, text.encode())
        print(f"\n{text}\nTable written to {args.out}")


def parse_args() -> argparse.Namespace:
    parser = common.make_parser(PROG, __doc__, EXAMPLE)
    known = sorted({*METHODS, *CANDIDATES})
    add_setting(parser)
    add = parser.add_argument
    add("--methods", nargs="+", default=[], choices=known, metavar="METHOD",
        help=f"of {', '.join(known)}")  # fmt: skip
    add("--epochs", type=int, default=3, help="of students; default: %(default)s")
    add("--seeds", type=int, nargs="+", default=[0], help="default: 0")
    add("--jobs", type=int, default=1, help="runs side by side; default: 1")
    add("--report", action="store_true", help="evaluate on the part that chose nothing, too")
    add("--out", type=Path, help="table; default: one in docs/results")
    args = parser.parse_args()
    name = f"photos_{args.data.name}_{args.student}_e{args.epochs}.md"
    args.out = args.out or Path("docs/results") / name
    return args


def add_setting(parser: argparse.ArgumentParser) -> None:
    """Add the options of :func:`setting_of`."""
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder of photographs")
    add("--weights", type=Path, required=True, help="folder of lite0.pth and lite2.pth")
    add("--side", type=int, default=192, help="pixels that images are fitted into; 192")
    add("--student", choices=[d for d in DETECTORS if d != "teacher"], default="lite0")
    add("--teacher-epochs", type=int, default=12, help="default: %(default)s")
    add("--root", type=Path, help="folder of the runs; default: one in work_dirs")


def setting_of(args: argparse.Namespace) -> Setting:
    """What the runs share."""
    root = args.root or Path("work_dirs") / f"photos_{args.data.name}_{args.side}"
    return Setting(root, args.data, args.weights, args.side, args.student, args.teacher_epochs)


def student(
    setting: Setting, teacher: Step, centers: Step, name: str, epochs: int, seed: int
) -> Step:
    """The run of a method, of a candidate, or of the student alone."""
    if name == "plain":
        return setting.plain(epochs, seed)
    method, change = CANDIDATES.get(name, (name, None))
    return setting.student_of(teacher, centers, method, epochs, seed, change, name)


def tables(
    args: argparse.Namespace, setting: Setting, teacher: Step, runs: dict[tuple[str, int], Step]
) -> str:
    """A table for each metric and part of the data, in Markdown."""
    done = {key: step for key, step in runs.items() if step.done}
    parts = [
        f"`{args.data.name}` at {args.side} pixels, Faster R-CNN: teacher {DETECTORS['teacher']}, "
        f"student {DETECTORS[args.student]} (backbone, channels of the pyramid, size of the "
        f"embedding), ImageNet weights, batch 4, AdamW 5e-4, {args.epochs} epochs (teacher "
        f"{args.teacher_epochs}), seeds {' '.join(map(str, args.seeds))}."
    ]
    scores = {"images that chose": _chosen_by(done, teacher)}
    reported = {key: report_step(step) for key, step in done.items()}
    if args.report:
        scores["images that chose nothing"] = _reported(
            {key: step for key, step in reported.items() if step.done}, report_step(teacher)
        )
    for part, (of_teacher, by_metric) in scores.items():
        for title, metric in METRICS.items():
            if by_metric[metric]:
                table = method_table(args.methods, by_metric[metric], of_teacher[metric], title)
                parts.append(f"{title}, {part}. Teacher: {of_teacher[metric]:.3f}.\n\n{table}")
    return "\n\n".join([*parts, provenance(runs.values())]) + "\n"


def _chosen_by(
    done: dict[tuple[str, int], Step], teacher: Step
) -> tuple[dict[str, float], dict[str, Results]]:
    of_teacher = {metric: final(teacher, metric) for metric in METRICS.values()}
    return of_teacher, {
        metric: {key: final(step, metric) for key, step in done.items()}
        for metric in METRICS.values()
    }


def _reported(
    done: dict[tuple[str, int], Step], teacher: Step
) -> tuple[dict[str, float], dict[str, Results]]:
    read = {key: json.loads(step.results[0].read_text()) for key, step in done.items()}
    of_teacher = json.loads(teacher.results[0].read_text()) if teacher.done else {}
    return {metric: of_teacher.get(metric, float("nan")) for metric in METRICS.values()}, {
        metric: {key: found[metric] for key, found in read.items()} for metric in METRICS.values()
    }


if __name__ == "__main__":
    common.run(main, common.GOES_ON)
