"""Make a teacher of configs/cls/ from one that mdistiller publishes for CIFAR-100."""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from kd_det.commands import common
from kd_det.errors import InvalidInputError


def make_parser(prog: str) -> argparse.ArgumentParser:
    """The command line's options."""
    parser = common.make_parser(
        prog,
        __doc__,
        "%(prog)s cifar_teachers/resnet56_vanilla/ckpt_epoch_240.pth checkpoints/cifar100_r56.pth"
        "\n\nThe files are in github.com/megvii-research/mdistiller/releases (cifar_teachers.tar).",
    )
    parser.add_argument("checkpoint", type=Path, help="mdistiller's file, ckpt_epoch_240.pth")
    parser.add_argument("out", type=Path, help="the file that a recipe's teacher_ckpt names")
    return parser


def execute(args: argparse.Namespace) -> None:
    """Convert the file that the command line names."""
    import torch
    from mmengine.runner import CheckpointLoader

    from kd_det import config_files
    from kd_det.backbones.mdistiller import from_mdistiller
    from kd_det.files import write_atomically

    config_files.require(
        args.checkpoint, "mdistiller's checkpoint", "unpack its cifar_teachers.tar"
    )
    content = CheckpointLoader.load_checkpoint(str(args.checkpoint), map_location="cpu")
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise InvalidInputError(
            f"{args.checkpoint}: expected a dict with the weights under 'model'"
        )
    weights = from_mdistiller(content["model"])
    file = io.BytesIO()
    torch.save({"state_dict": weights}, file)
    write_atomically(args.out, file.getvalue())
    print(f"{len(weights)} tensors written to {args.out}")
