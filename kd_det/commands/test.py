"""Evaluate the student, the teacher or both by the config's metric."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from kd_det.commands import common
from kd_det.errors import InvalidInputError


def make_parser(prog: str) -> argparse.ArgumentParser:
    """The command line's options."""
    parser = common.parser(
        prog,
        "Evaluate a model on the test data of a config.",
        "%(prog)s configs/digits/review_nd_kd.py work_dirs/run/epoch_10.pth --model both",
    )
    parser.add_argument(
        "checkpoint", nargs="?", help="the student's checkpoint; not needed for the teacher alone"
    )
    parser.add_argument(
        "--model",
        choices=["student", "teacher", "both"],
        default="student",
        help="which of a distillation config's models (default: student)",
    )
    parser.add_argument("--out", help="write the metrics to this JSON file")
    return parser


def execute(args: argparse.Namespace) -> None:
    """Evaluate what the command line says."""
    models = ["student", "teacher"] if args.model == "both" else [args.model]
    metrics = {model: evaluate(args, model) for model in models}
    from mmengine.dist import is_main_process

    if not is_main_process():
        return
    text = json.dumps(metrics if len(models) > 1 else metrics[models[0]], indent=2)
    print(text)
    if args.out:
        from kd_det.files import write_atomically

        write_atomically(Path(args.out), text.encode())
        print(f"Metrics written to {args.out}")
    else:
        print("Only logs were written; --out FILE keeps these metrics as JSON")


def evaluate(args: argparse.Namespace, which: str) -> dict[str, float]:
    """Metrics of one model, built alone: neither needs the other to be tested."""
    from mmengine.model import is_model_wrapper
    from mmengine.runner import Runner

    from kd_det import config_files
    from kd_det.algorithms.checkpoint import load_weights

    cfg = common.load_config(args)
    checkpoint = args.checkpoint
    if config_files.is_distillation(cfg):
        if which == "teacher":
            checkpoint = cfg.model.teacher_ckpt
            config_files.check_files(cfg, ("teacher",))
        cfg.model = config_files.model_config(cfg, which)
    elif which == "teacher":
        raise InvalidInputError(f"{args.config} has no model.teacher; use --model student")
    if checkpoint is None:
        raise InvalidInputError("the checkpoint to evaluate is missing on the command line")
    config_files.check_files(cfg, ("test",))
    # Only the weights named here are evaluated, without hooks of training.
    cfg.update(load_from=None, resume=False, custom_hooks=[])
    cfg.test_cfg = dict(type="TestLoop")
    runner = Runner.from_cfg(cfg)
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    load_weights(model, checkpoint, which)
    return {key: float(value) for key, value in runner.test().items()}
