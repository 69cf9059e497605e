"""Export the student of a run: for MMDetection (or MMPretrain) alone, or as one ONNX file."""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import TYPE_CHECKING

from kd_det.commands import common
from kd_det.errors import InvalidInputError

if TYPE_CHECKING:
    from mmengine.config import Config

    from kd_det.export.plain_config import PlainConfig


def make_parser(prog: str) -> argparse.ArgumentParser:
    """The command line's options."""
    example = "%(prog)s work_dirs/frcnn_r101_r18_review_nd --checkpoint best"
    parser = common.make_parser(prog, __doc__, example)
    parser.add_argument("run", type=Path, help="work directory of a training")
    parser.add_argument(
        "--checkpoint",
        default="last",
        metavar="best|last|FILE",
        help="which of the run's checkpoints (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="folder (or .onnx file) to write, replacing an earlier export (default: student, "
        "student_best or student_FILE in the work directory)",
    )
    add = parser.add_argument_group("ONNX (docs/deploy.md)").add_argument
    add(
        "--format",
        choices=["mmdet", "onnx"],
        default="mmdet",
        help="config and weights, or one ONNX file with NMS inside (default: %(default)s)",
    )
    add("--size", type=int, nargs=2, metavar=("H", "W"), help="fixed input size (default: any)")
    add("--batch-size", type=int, metavar="N", help="fixed number of images (default: any)")
    add(
        "--with-preprocessing",
        action="store_true",
        help="normalise inside: the input is RGB images, uint8 [B, H, W, 3]",
    )
    add("--check-map", action="store_true", help="evaluate the file on the validation set too")
    return parser


def execute(args: argparse.Namespace) -> None:
    """Export as the command line says."""
    from kd_det import config_files

    refuse_onnx_options(args)
    config_files.require(args.run, "the work directory", "give that of a training")
    checkpoint = find_checkpoint(args.run, args.checkpoint)
    suffix = {"last": "", "best": "_best"}.get(args.checkpoint, f"_{checkpoint.stem}")
    folder = args.out or args.run / f"student{suffix}"

    from kd_det.export.plain_config import plain_config

    cfg = find_config(args.run, checkpoint)
    plain = plain_config(cfg)
    if args.format == "onnx":
        write_onnx(args, checkpoint, plain, args.out or folder.with_name(f"{folder.name}.onnx"))
        return

    from kd_det.export.student import export_student

    for part in plain.left_out:
        print(f"the exported config is without {part}")
    if plain.requires:
        print(f"the student has modules of {', '.join(plain.requires)}, and needs that package")
    check_weights(plain, checkpoint)
    metadata = export_student(checkpoint, cfg, plain, folder, args.run)
    metrics = ", ".join(f"{name} {value}" for name, value in (metadata["metrics"] or {}).items())
    print(f"{metadata['model']} of {checkpoint} ({metrics or 'no metrics logged'}) is in {folder}")


def refuse_onnx_options(args: argparse.Namespace) -> None:
    """Raise ``InvalidInputError`` if options of ONNX are given for another format."""
    values = {
        "--size": args.size,
        "--batch-size": args.batch_size,
        "--with-preprocessing": args.with_preprocessing,
        "--check-map": args.check_map,
    }
    given = [name for name, value in values.items() if value]
    if args.format != "onnx" and given:
        raise InvalidInputError(f"{', '.join(given)}: for --format onnx alone; add it")


def write_onnx(args: argparse.Namespace, checkpoint: Path, plain: PlainConfig, path: Path) -> None:
    """Write and check the ONNX file."""
    if plain.cfg.default_scope != "mmdet":
        raise InvalidInputError(
            f"--format onnx is for detectors of mmdet, found a model of {plain.cfg.default_scope}"
        )
    from kd_det.export.onnx.student import export_student_onnx

    export_student_onnx(
        checkpoint,
        plain.cfg,
        path,
        size=tuple(args.size) if args.size else None,
        batch=args.batch_size,
        preprocess=args.with_preprocessing,
        check_map=args.check_map,
    )


def find_checkpoint(run: Path, which: str) -> Path:
    """The best or last checkpoint of a run, or the one named."""
    from kd_det import config_files
    from kd_det.report.runs import last_checkpoint

    if which == "last":
        return last_checkpoint(run)
    if which != "best":
        config_files.require(which, "the checkpoint", "--checkpoint takes best, last or a file")
        return Path(which)
    found = sorted(run.glob("best_*.pth"))
    if len(found) != 1:
        raise FileNotFoundError(
            f"expected one best_*.pth in {run} (CheckpointHook's save_best writes it), found "
            f"{[path.name for path in found] or 'none'}; name one with --checkpoint"
        )
    return found[0]


def find_config(run: Path, checkpoint: Path) -> Config:
    """The config that a Runner wrote into the work directory, for this very checkpoint."""
    from mmengine.config import Config

    from kd_det.algorithms.checkpoint import read_weights

    found = sorted(run.glob("*.py"))
    if not found:
        raise FileNotFoundError(f"expected the run's config, a .py file, in {run}, found none")
    text = read_weights(checkpoint, "student")[1].get("cfg")
    same = [path for path in found if path.read_text(encoding="utf-8") == text]
    if not same and len(found) > 1:
        raise InvalidInputError(
            f"expected one of {[path.name for path in found]} in {run} to be the config that "
            f"{checkpoint.name} was made with, found that none is"
        )
    if not same:
        print(f"warning: {found[0]} differs from the config that {checkpoint} was made with")
    return Config.fromfile((same or found)[0])


def check_weights(plain: PlainConfig, checkpoint: Path) -> None:
    """Raise ``CheckpointError`` unless the weights fit the model of the exported config."""
    from mmengine.registry import MODELS, init_default_scope

    from kd_det.algorithms.checkpoint import load_weights

    init_default_scope(plain.cfg.default_scope)
    # Detectors write into the config that they are built from.
    model = MODELS.build(copy.deepcopy(plain.cfg.model))
    load_weights(model, str(checkpoint), "student")
