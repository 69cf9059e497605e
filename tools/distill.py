"""Let one detector teach another: makes the config for any two, and trains it."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import train as training  # tools/train.py
from rich.console import Console

import kd_det  # noqa: F401  (mends the stack before anything else is imported)
from kd_det import config_files
from kd_det.commands import common


def main() -> None:
    args = parse_args()
    # After parsing, so that --help does not wait for mmdet.
    from kd_det.pairing.compose import pair

    if args.work_dir is not None:
        common.check_work_dir(Path(args.work_dir))
    config_files.require(args.teacher_ckpt, "the teacher's checkpoint", "give its file or URL")
    with Console(stderr=True).status("Reading both detectors and the data"):
        pairing = pair(
            args.student,
            args.teacher,
            args.method,
            teacher_ckpt=args.teacher_ckpt,
            data=args.data,
            work_dir=args.work_dir,
            epochs=args.epochs,
            batch_size=args.batch_size,
            cfg_options=args.cfg_options,
        )
    print(pairing.describe())
    # Not in the work directory itself, where a Runner writes the config that it was given.
    path = Path(pairing.cfg.work_dir) / "config" / "distill.py"
    common.check_work_dir(path.parent)
    pairing.write(path)
    again = " ".join(["python tools/train.py", shlex.quote(str(path)), *_training_options(args)])
    print(f"\nThe config is {path}; to train it again, or after changes:\n  {again}", flush=True)
    alone = path.with_name("alone.py")
    training_alone = " ".join(
        ["python tools/train.py", shlex.quote(str(alone)), *_training_options(args)]
    )
    print(f"The same training without the teacher, to compare with:\n  {training_alone}\n")
    cfg = common.load_config(
        argparse.Namespace(
            config=str(path), cfg_options=None, work_dir=None, launcher="none", local_rank=0
        )
    )
    if not args.dry_run:
        training.train(cfg, args)
        return
    config_files.check_files(cfg, ("train", "val", "teacher"))
    with Console(stderr=True).status("Building all that a training builds"):
        pairing.check()
    print(f"Everything fits, and nothing was trained. Config: {path}. Next: {again}")


def parse_args() -> argparse.Namespace:
    parser = common.bare_parser(
        "Distil any two-stage detector of mmdet into another. Reads both configs, finds out what "
        "fits to what,\nwrites the config that it made into the work directory, and trains it. For "
        "several GPUs: --dry-run first,\nthen tools/dist_train.sh with that config.",
        "python tools/distill.py mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py \\\n"
        "      mmdet::faster_rcnn/faster-rcnn_r101_fpn_2x_coco.py \\\n"
        "      --teacher-ckpt teacher.pth --data data/fruit\n"
        "  python tools/distill.py --method list",
    )
    a_config = "config file, or a config of a package (mmdet::...)"
    parser.add_argument("student", help=f"who learns: {a_config}")
    parser.add_argument("teacher", help=f"who teaches: {a_config}")
    parser.add_argument(
        "--teacher-ckpt", required=True, help="file or URL of the teacher's weights"
    )
    parser.add_argument(
        "--data",
        help="folder in COCO format (annotations and images are found by their names), or a config "
        "of mmdet with data loaders (default: the data that the student's config names)",
    )
    parser.add_argument(
        "--method",
        action=_Method,
        default="robust",
        help="how it is taught (default: %(default)s); 'list' explains all methods",
    )
    parser.add_argument("--epochs", type=int, help="length (default: that of the student's config)")
    parser.add_argument("--batch-size", type=int, help="images of a step (default: the student's)")
    parser.add_argument("--dry-run", action="store_true", help="stop before training")
    training.add_options(parser)
    return parser.parse_args()


class _Method(argparse.Action):
    """A method's name, or ``list``."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        if values == "list":
            from kd_det.pairing.methods import describe_methods

            print(describe_methods())
            parser.exit()
        setattr(namespace, self.dest, values)


def _training_options(args: argparse.Namespace) -> list[str]:
    """What of the command line belongs to training and not to the config."""
    flags = {"--amp": args.amp, "--auto-scale-lr": args.auto_scale_lr}
    return [flag for flag, given in flags.items() if given]


if __name__ == "__main__":
    common.run(main, common.GOES_ON_WITH_RESUME)
