"""Let one detector teach another: make the config for any two, and train it."""

from __future__ import annotations

import argparse
import copy
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kd_det.commands import common, data_options, trainings, whole_way
from kd_det.commands import train as training
from kd_det.errors import InvalidInputError
from kd_det.pairing.methods import DEFAULT

STOPPED = f"{common.GOES_ON}; with --teacher-ckpt and without --baseline, add --resume"
# Options that name other data than those of --data or the student's config.
OTHER_DATA = re.compile(
    r".*(dataloader|dataset|datasets|data_root|data_prefix.*|ann_file|metainfo.*|evaluator)"
)


def execute(args: argparse.Namespace, may_download: bool = True) -> None:
    """Make the config that the command line asks for, and train it.

    Where several trainings are asked for, ``may_download`` says whether weights may be downloaded
    that the configs name.
    """
    if args.method == "list":
        list_methods(args)
        return
    from kd_det import config_files

    if args.work_dir is not None:
        common.check_work_dir(Path(args.work_dir))
    remedy = "give its file or URL"
    config_files.require(args.teacher_ckpt, "the teacher's checkpoint", remedy)
    config_files.require(args.teacher_init, "the checkpoint of --teacher-init", remedy)
    several = whole_way.is_asked_for(args)
    if several and args.work_dir is None:
        args.work_dir = whole_way.default_work_dir(args)
    data = _prepare(args)
    if several:
        whole_way.execute(args, data, may_download)
    else:
        _train_one(args, data)


def _train_one(args: argparse.Namespace, data: Any) -> None:
    """Train a student with a given teacher, in this process."""
    from rich.console import Console

    from kd_det.pairing.dry_run import dry_run

    with Console(stderr=True).status("Reading both detectors and the data"):
        pairing = whole_way.read_pair(args, data, args.work_dir)
    print(pairing.describe())
    # The data were checked when they were read.
    others = any(map(OTHER_DATA.fullmatch, args.cfg_options or ()))
    # Not in the work directory itself, where a Runner writes the config that it was given.
    path = Path(pairing.cfg.work_dir) / "config" / "distill.py"
    common.check_work_dir(path.parent)
    if args.resume is not None:  # refused before the config is overwritten
        training.prepare(copy.deepcopy(pairing.cfg), args, check_data=False)
    pairing.write(path)
    again = shlex.join([*common.call_words("train"), str(path), *trainings.training_options(args)])
    print(f"\nThe config is {path}; to train it again, or after changes:\n  {again}")
    alone = [str(pairing.alone_path(path)), *trainings.training_options(args)]
    print(
        "The same training without the teacher, to compare with:\n"
        f"  {shlex.join([*common.call_words('train'), *alone])}\n",
        flush=True,
    )
    cfg = common.load_config(
        argparse.Namespace(
            config=str(path), cfg_options=None, work_dir=None, launcher="none", local_rank=0
        )
    )
    if not args.dry_run:
        training.train(cfg, args, check_data=others)
        return
    training.prepare(cfg, args, check_data=others)
    with Console(stderr=True).status("Building all that a training builds"):
        dry_run(cfg)
    print(f"Everything fits, and nothing was trained. Config: {path}. Next: {again}")


def list_methods(args: argparse.Namespace) -> None:
    """Explain all methods, or those that fit the pair that is named, and why others do not."""
    if args.teacher is None:
        from kd_det.pairing.methods import describe_methods

        print(describe_methods())
        return
    from kd_det.pairing.compose import read_pair
    from kd_det.pairing.offers import describe_fitting

    print(describe_fitting(*read_pair(args.student, args.teacher)))


def _prepare(args: argparse.Namespace) -> Any:
    """The data of ``--data``: a folder is recognised, inspected and converted, and told of first.

    Raises:
        kd_det.errors.UserError: If it is not valid, or options of a folder are given without one.
    """
    from kd_det.datasets.prepared import prepare
    from kd_det.pairing.compose import default_work_dir, read_sides
    from kd_det.pairing.data import image_scale, is_config

    if args.data is None or is_config(args.data):
        given = data_options.given(args)
        if given:
            raise InvalidInputError(
                f"{', '.join(given)}: expected a folder of labelled images as --data"
            )
        return args.data
    work_dir = args.work_dir or default_work_dir(args.student, args.teacher, args.method)
    common.check_work_dir(Path(work_dir))
    scale = image_scale(read_sides(args.student, args.teacher)[0])
    options = data_options.read_options(args)
    return prepare(Path(args.data), Path(work_dir), scale, print, **options)


def make_parser(prog: str) -> argparse.ArgumentParser:
    """The command line's options."""
    parser = common.make_parser(
        prog,
        "Distil any detector of mmdet into another. Reads both configs, finds out what "
        "fits to what,\nwrites the config that it made into the work directory, and trains it. "
        "Without --teacher-ckpt, the\nteacher is trained first, then the student alone, then the "
        "distilled one, and a report is written.\nFor several GPUs: --dry-run first, then train "
        "the configs as docs/distributed.md says.",
        "%(prog)s mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py \\\n"
        "      mmdet::faster_rcnn/faster-rcnn_r101_fpn_2x_coco.py \\\n"
        "      --teacher-ckpt teacher.pth --data data/fruit\n"
        "  %(prog)s my_small.py my_large.py --data data/fruit --teacher-init coco.pth\n"
        "  %(prog)s [STUDENT TEACHER] --method list",
    )
    common.add_run_options(parser)
    a_config = "config file, or a config of a package (kd_det::..., mmdet::...)"
    parser.add_argument("student", help=f"who learns: {a_config}")
    parser.add_argument("teacher", help=f"who teaches: {a_config}")
    add = parser.add_argument
    add(
        "--teacher-ckpt",
        metavar="FILE",
        help="file or URL of the weights of a teacher that was trained on this data (default: it "
        "is trained first, in teacher/ of the work directory, and reused)",
    )
    add(
        "--teacher-init",
        metavar="FILE",
        help="file or URL of weights from which a teacher is trained, as COCO's; heads for other "
        "classes are left out (default: what its config says)",
    )
    add("--teacher-epochs", type=int, metavar="N", help="its length (default: its config's)")
    add(
        "--baseline",
        action=argparse.BooleanOptionalAction,
        help="train the student without a teacher too, before, and compare both in a report "
        "(default: where the teacher is trained here, since nobody knows yet whether it helps)",
    )
    parser.add_argument(
        "--data",
        help="folder of labelled images (COCO, YOLO, Pascal VOC, CVAT or LabelMe; 'kd-det data' "
        "looks at it alone), or a config of mmdet with data loaders (default: the data that the "
        "student's config names)",
    )
    data_options.add(parser)
    parser.add_argument(
        "--method",
        action=_Method,
        default=DEFAULT,
        help="how it is taught (default: %(default)s); 'list' explains all methods, "
        "or with two configs those that fit them",
    )
    add("--epochs", type=int, help="of the student (default: those of its config)")
    add("--batch-size", type=int, help="images of a step (default: that of each config)")
    add("--dry-run", action="store_true", help="build and check all, print the plan, train nothing")
    training.add_options(parser)
    return parser


class _Method(argparse.Action):
    """A method's name, or ``list``."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        if values == "list":  # nothing else is needed
            for action in parser._actions:
                action.required = False
        setattr(namespace, self.dest, values)
