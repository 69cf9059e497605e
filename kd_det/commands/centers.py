"""Gather a teacher's class centers into a file, without training."""

from __future__ import annotations

import argparse

from kd_det.commands import common
from kd_det.errors import InvalidInputError


def make_parser(prog: str) -> argparse.ArgumentParser:
    """The command line's options."""
    parser = common.make_parser(
        prog,
        "Gather the teacher's class centers over the training data of a distillation config.",
        "%(prog)s kd_det::digits/review_nd_kd.py --out centers.safetensors",
    )
    common.add_config_options(parser)
    parser.add_argument("--out", help="file to write (default: in the work directory)")
    parser.add_argument("--max-images", type=int, help="use that many images (default: all)")
    parser.add_argument(
        "--rois",
        choices=["sampled", "gt"],
        default="sampled",
        help="RoIs of the teacher's own proposals, or the annotated boxes (no background)",
    )
    return parser


def execute(args: argparse.Namespace) -> None:
    """Gather them as the command line says."""
    from kd_det import config_files

    cfg = common.load_config(args)
    if not config_files.is_distillation(cfg):
        raise InvalidInputError(f"{args.config} has no model.teacher; give a distillation config")
    config_files.check_files(cfg, ("train", "teacher"))
    for name in ("val", "test"):
        cfg.update({f"{name}_dataloader": None, f"{name}_cfg": None, f"{name}_evaluator": None})

    from mmengine.runner import Runner

    from kd_det.hooks import ClassCenterHook

    cfg.custom_hooks = []
    runner = Runner.from_cfg(cfg)
    hook = ClassCenterHook(max_images=args.max_images, rois=args.rois)
    hook.collect(runner, args.out)
