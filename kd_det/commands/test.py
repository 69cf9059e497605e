"""Evaluate the student, the teacher or both by the config's metric."""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kd_det.commands import common
from kd_det.errors import InvalidInputError

if TYPE_CHECKING:
    from mmengine.config import Config

PICKLES = (".pkl", ".pickle")


def make_parser(prog: str) -> argparse.ArgumentParser:
    """The command line's options."""
    parser = common.make_parser(
        prog,
        "Evaluate a model on the test data of a config.",
        "%(prog)s kd_det::digits/review_nd_kd.py work_dirs/run/epoch_10.pth --model both",
    )
    common.add_config_options(parser)
    add = parser.add_argument
    add("checkpoint", nargs="?", help="the student's checkpoint; not needed for the teacher alone")
    add(
        "--model",
        choices=["student", "teacher", "both"],
        default="student",
        help="which of a distillation config's models (default: student)",
    )
    add(
        "--out",
        metavar="FILE",
        help="write the metrics to this JSON file; with .pkl, the predictions of one model, for "
        "mmdet's analysis tools",
    )
    add(
        "--show-dir",
        metavar="FOLDER",
        help="draw the detections into this folder of the work directory",
    )
    add("--show", action="store_true", help="show the detections in a window")
    add("--wait-time", type=float, default=2, help="seconds of a window (default: %(default)s)")
    add("--tta", action="store_true", help="test-time augmentation (tta_model in the config)")
    return parser


def execute(args: argparse.Namespace) -> None:
    """Evaluate what the command line says."""
    models = ["student", "teacher"] if args.model == "both" else [args.model]
    pickled = args.out is not None and Path(args.out).suffix in PICKLES
    if pickled and len(models) > 1:
        raise InvalidInputError(f"{args.out} can hold one model's predictions; choose by --model")
    metrics = {model: evaluate(args, model) for model in models}
    from mmengine.dist import is_main_process

    if not is_main_process():
        return
    text = json.dumps(metrics if len(models) > 1 else metrics[models[0]], indent=2)
    print(text)
    if pickled:
        print(f"Predictions written to {args.out}")
    elif args.out:
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
    from kd_det.evaluation import fit_evaluator

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
    if args.show or args.show_dir:
        _draw(cfg, args, which)
    if args.tta:
        _augment(cfg)
    runner = Runner.from_cfg(cfg)
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    detector = model.module if args.tta else model
    load_weights(detector, checkpoint, which)
    fit_evaluator(runner.test_loop, model, f"the {which}")
    if args.out and Path(args.out).suffix in PICKLES:
        runner.test_evaluator.metrics.append(_dump(cfg, args.out))
    return {key: float(value) for key, value in runner.test().items()}


def _draw(cfg: Config, args: argparse.Namespace, which: str) -> None:
    """Let the config's visualization hook draw, or the hook that its packages have."""
    classifier = cfg.get("default_scope") == "mmpretrain"
    kind = "mmpretrain.VisualizationHook" if classifier else "mmdet.DetVisualizationHook"
    hook = cfg.setdefault("default_hooks", {}).get("visualization") or dict(type=kind)
    folder = args.show_dir
    if folder is not None and args.model == "both":
        folder = str(Path(folder) / which)
    hook.update(show=args.show, wait_time=args.wait_time)
    hook.update(
        dict(enable=True, out_dir=folder) if classifier else dict(draw=True, test_out_dir=folder)
    )
    cfg.default_hooks["visualization"] = hook
    if not cfg.get("visualizer"):
        name = "mmpretrain.UniversalVisualizer" if classifier else "mmdet.DetLocalVisualizer"
        cfg.visualizer = dict(type=name, vis_backends=[dict(type="LocalVisBackend")])


def _augment(cfg: Config) -> None:
    """Test-time augmentation as mmdet's tools/test.py does it."""
    if "tta_model" not in cfg or "tta_pipeline" not in cfg:
        if cfg.get("default_scope") != "mmdet":
            raise InvalidInputError("--tta needs tta_model and tta_pipeline in the config")
        cfg.tta_model = dict(
            type="DetTTAModel",
            tta_cfg=dict(nms=dict(type="nms", iou_threshold=0.5), max_per_img=100),
        )
        pipeline = copy.deepcopy(cfg.test_dataloader.dataset.pipeline)
        pipeline[-1] = dict(type="TestTimeAug", transforms=_flipped(pipeline[-1]))
        cfg.tta_pipeline = pipeline
    cfg.model = dict(cfg.tta_model, module=cfg.model)
    dataset = cfg.test_dataloader.dataset
    while "dataset" in dataset:
        dataset = dataset.dataset
    dataset.pipeline = cfg.tta_pipeline


def _flipped(pack: Any) -> list[list[Any]]:
    """Each image as it is and turned over; ``pack`` must tell the model which it was."""
    keys = pack.get("meta_keys") or (
        "img_id", "img_path", "ori_shape", "img_shape", "scale_factor",
    )  # fmt: skip
    pack["meta_keys"] = tuple(dict.fromkeys((*keys, "flip", "flip_direction")))
    return [[dict(type="RandomFlip", prob=1.0), dict(type="RandomFlip", prob=0.0)], [pack]]


def _dump(cfg: Config, path: str) -> Any:
    """The metric that writes predictions as mmdet's and mmpretrain's test tools do."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    if cfg.get("default_scope") == "mmdet":
        from mmdet.evaluation import DumpDetResults

        return DumpDetResults(out_file_path=path)
    from mmengine.evaluator import DumpResults

    return DumpResults(out_file_path=path)
