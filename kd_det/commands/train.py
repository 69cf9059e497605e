"""Train a detector, distilled or plain, from a config."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kd_det.commands import common
from kd_det.errors import InvalidInputError

if TYPE_CHECKING:
    from mmengine.config import Config

    from kd_det.commands.resume import Resumed

STOPPED = common.GOES_ON_WITH_RESUME


def make_parser(prog: str) -> argparse.ArgumentParser:
    """The command line's options."""
    parser = common.make_parser(
        prog,
        "Train a model from a config: a student with its teacher, or any mmdet model.",
        "%(prog)s kd_det::frcnn_r101_r18_review_nd.py --work-dir work_dirs/r18",
    )
    common.add_config_options(parser)
    add_options(parser)
    return parser


def execute(args: argparse.Namespace) -> None:
    """Train as the command line says."""
    train(common.load_config(args), args)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of training beside the config."""
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
        help="go on from CHECKPOINT, or from the last one in the work directory; the schedule may "
        "have another length",
    )
    parser.add_argument(
        "--allow-changes",
        action="store_true",
        help="resume although more of the config differs from that of the checkpoint",
    )


def train(cfg: Config, args: argparse.Namespace, check_data: bool = True) -> None:
    """Train a config with the options of :func:`add_options`; see :func:`prepare`."""
    resumed = prepare(cfg, args, check_data)

    from mmengine.registry import RUNNERS
    from mmengine.runner import Runner

    from kd_det import config_files
    from kd_det.commands.data_check import DataCheck
    from kd_det.commands.resume import ApplyChanges

    runner = RUNNERS.build(cfg) if "runner_type" in cfg else Runner.from_cfg(cfg)
    if resumed is not None and resumed.changes:
        runner.register_hook(ApplyChanges(resumed))
    runner.register_hook(DataCheck())
    if config_files.is_distillation(cfg):
        _watch_losses(runner)
    runner.train()
    _log_verdict(runner, cfg)
    runner.logger.info(_outcome(runner, cfg))


def prepare(cfg: Config, args: argparse.Namespace, check_data: bool = True) -> Resumed | None:
    """Write the options of :func:`add_options` into a config, and check what it needs.

    Args:
        cfg: The config, changed in place.
        args: What the command line says.
        check_data: Whether to check the data; False where that was done already.

    Returns:
        The checkpoint that is resumed, if there is one.

    Raises:
        FileNotFoundError: If data or checkpoints are missing.
        InvalidInputError: If an option does not fit the config, or the config its checkpoint.
    """
    from kd_det import config_files

    parts = ("train", "val") if check_data else ()
    teacher = ("teacher",) if config_files.is_distillation(cfg) else ()
    config_files.check_files(cfg, (*parts, *teacher))

    # A config that asks for float16 would stop on a CPU.
    if args.amp or config_files.type_name(cfg.optim_wrapper) == "AmpOptimWrapper":
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
    if not cfg.get("resume"):
        return None
    from kd_det.commands.resume import check_resume

    return check_resume(cfg, args.allow_changes)


def _watch_losses(runner: Any) -> None:
    """Add what ``kd-det doctor`` needs to know, unless the config has it."""
    from kd_det.hooks import GradientShareHook, ZeroLossHook

    for hook in (GradientShareHook, ZeroLossHook):
        if not any(isinstance(each, hook) for each in runner.hooks):
            runner.register_hook(hook())


def _log_verdict(runner: Any, cfg: Config) -> None:
    """Log what ``kd-det doctor`` says of a distillation."""
    from mmengine.dist import is_main_process

    from kd_det import config_files
    from kd_det.report.doctor import diagnose

    # Without MMEngine's LocalVisBackend there is nothing to read.
    local = any(Path(runner.work_dir).glob("*/vis_data/scalars.json"))
    if local and is_main_process() and config_files.is_distillation(cfg):
        runner.logger.info(diagnose(Path(runner.work_dir)).describe())


def _outcome(runner: Any, cfg: Config) -> str:
    """The result, where it lies, and the next commands."""
    from mmengine.runner import find_latest_checkpoint

    scalars = runner.message_hub.log_scalars
    measured = [name for name in scalars if name.startswith("val/") and "time" not in name]
    # An evaluator names its main metric first, but for those of classes.
    measured.sort(key=lambda name: name.endswith("_precision"))
    result = [f"{m.removeprefix('val/')} {scalars[m].current():.4f}" for m in measured[:1]]
    text = f"{': '.join(['Training is done', *result])}. "
    text += f"Checkpoints and logs lie in {runner.work_dir}"
    checkpoint = find_latest_checkpoint(runner.work_dir)
    if checkpoint is None:
        return text
    from kd_det.recipes import method_option

    test = shlex.join([*common.call_words("test"), cfg.filename, checkpoint, *method_option(cfg)])
    report = shlex.join([*common.call_words("report"), runner.work_dir])
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
