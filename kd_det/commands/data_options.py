"""Options for what cannot be guessed of a folder of labelled images."""

from __future__ import annotations

import argparse
from typing import Any


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    option = parser.add_argument
    option(
        "--train-ann",
        metavar="PATH",
        help="what to learn from, if it cannot be guessed: a .json file, a data.yaml, or a folder "
        "of labels",
    )
    option("--val-ann", metavar="PATH", help="the same for what to evaluate on")
    option("--images", metavar="DIR", help="the folder of images, if it cannot be guessed")
    option(
        "--val-split",
        type=float,
        metavar="FRACTION",
        help="how many of the images to evaluate on, if nothing divides them (default: 0.2)",
    )
    option("--split-seed", type=int, default=0, help="seed of that division (default: %(default)s)")


def read_options(args: argparse.Namespace) -> dict[str, Any]:
    """Arguments for :func:`kd_det.datasets.formats.read_set`."""
    return dict(
        train_ann=args.train_ann,
        val_ann=args.val_ann,
        images=args.images,
        val_split=args.val_split,
        seed=args.split_seed,
    )


def given(args: argparse.Namespace) -> list[str]:
    """List the options that were given."""
    names = {
        "--train-ann": args.train_ann,
        "--val-ann": args.val_ann,
        "--images": args.images,
        "--val-split": args.val_split,
        "--split-seed": args.split_seed or None,
    }
    return [name for name, value in names.items() if value is not None]
