"""Make the built-in sample data: handwritten digits as a small COCO detection set."""

from __future__ import annotations

import argparse
import sys

from kd_det.commands import common

EXAMPLE = """%(prog)s --root data/digits-coco

makes 1000 images to train on and 200 to validate on in some seconds, and does nothing if they are
there already. Needs scikit-learn: pip install "kd_det[demo]"
"""


def execute(args: argparse.Namespace) -> None:
    """Make the set that the command line asks for."""
    from kd_det.datasets import make_digits_coco
    from kd_det.progress import progress

    made = make_digits_coco(
        args.root,
        image_size=args.image_size,
        train_images=args.train_images,
        val_images=args.val_images,
        seed=args.seed,
        force=args.force,
        track=progress if sys.stdout.isatty() else None,
    )
    print(
        f"{made.root}: {'made' if made.created else 'up to date'}; images in train/ "
        f"({args.train_images}) and val/ ({args.val_images}), boxes in "
        f"annotations/{made.train_ann.name} and {made.val_ann.name}"
    )


def make_parser(prog: str) -> argparse.ArgumentParser:
    """The command line's options."""
    parser = common.make_parser(prog, __doc__, EXAMPLE)
    add = parser.add_argument
    add("--root", default="data/digits-coco", help="folder of the set (default: %(default)s)")
    add("--image-size", type=int, default=128, help="side in pixels (default: %(default)s)")
    add("--train-images", type=int, default=1000, help="default: %(default)s")
    add("--val-images", type=int, default=200, help="default: %(default)s")
    add("--seed", type=int, default=0, help="another seed, other pictures (default: %(default)s)")
    add("--force", action="store_true", help="replace a digits-coco set that is there")
    return parser
