"""Train a detector, distilled or plain, from a config."""

from __future__ import annotations

import argparse
import shlex
from typing import Any

from mmengine.config import Config

import kd_det  # noqa: F401  (mends the stack before anything else is imported)
from kd_det import config_files
from kd_det.commands import common
from kd_det.errors import InvalidInputError
from kd_det.recipes import method_option


def main() -> None:
    parser = common.parser(
        "Train a model from a config: a student with its teacher, or any mmdet model.",
        "python tools/train.py configs/frcnn_r101_r18_review_nd.py --work-dir work_dirs/r18",
    )
    add_options(parser)
    args = parser.parse_args()
    train(common.load_config(args), args)


def add_options(parser: argparse.ArgumentParser) -> None:
    """How to train, beside what a config says."""
    parser.add_argument(
        "--amp",
        action="store_true",
        help="train with automatic mixed precision (float16 on a GPU, bfloat16 on a CPU)",
    )
    parser.add_argument(
        "--auto-scale-lr",
        action="store_true",
        help="scale the learning rate with the batch size (auto_scale_lr in the config)",
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CHECKPOINT",
        help="go on from CHECKPOINT, or from the last one in the work directory",
    )


def train(cfg: Config, args: argparse.Namespace) -> None:
    """Train a config with the options of :func:`add_options`."""
    config_files.check_files(
        cfg, ("train", "val", *(["teacher"] if config_files.is_distillation(cfg) else []))
    )

    # A config that asks for float16 would stop on a CPU.
    if args.amp or cfg.optim_wrapper.get("type") == "AmpOptimWrapper":
        _mix_precision(cfg.optim_wrapper)
    if args.auto_scale_lr:
        if "base_batch_size" not in cfg.get("auto_scale_lr", {}):
            raise InvalidInputError(
                "--auto-scale-lr needs auto_scale_lr.base_batch_size in the config"
            )
        cfg.auto_scale_lr.enable = True
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == "auto" else args.resume
        remedy = "--resume alone takes the last one in the work directory"
        config_files.require(cfg.load_from, "the checkpoint to resume", remedy)

    from mmengine.registry import RUNNERS
    from mmengine.runner import Runner

    runner = RUNNERS.build(cfg) if "runner_type" in cfg else Runner.from_cfg(cfg)
    runner.train()
    runner.logger.info(_outcome(runner, cfg))


def _outcome(runner: Any, cfg: Config) -> str:
    """What came out, where it lies, and what to do next."""
    from mmengine.runner import find_latest_checkpoint

    scalars = runner.message_hub.log_scalars
    measured = [name for name in scalars if name.startswith("val/") and "time" not in name]
    # An evaluator names its main metric first.
    result = [f"{m.removeprefix('val/')} {scalars[m].current():.4f}" for m in measured[:1]]
    text = f"{': '.join(['Training is done', *result])}. "
    text += f"Checkpoints and logs lie in {runner.work_dir}"
    checkpoint = find_latest_checkpoint(runner.work_dir)
    if checkpoint is None:
        return text
    test = shlex.join(["python", "tools/test.py", cfg.filename, checkpoint, *method_option(cfg)])
    report = shlex.join(["python", "tools/report.py", runner.work_dir])
    return f"{text}. Next: {test}; to compare: {report} [FOLDERS OF OTHER RUNS]"


def _mix_precision(optim_wrapper: Any) -> None:
    from mmengine.device import get_device

    if get_device() == "cpu":
        optim_wrapper.type = "kd_det.Bfloat16OptimWrapper"
        for option in ("loss_scale", "dtype"):  # of float16
            optim_wrapper.pop(option, None)
        return
    optim_wrapper.type = "AmpOptimWrapper"
    optim_wrapper.setdefault("loss_scale", "dynamic")


if __name__ == "__main__":
    common.run(main, common.GOES_ON_WITH_RESUME)
