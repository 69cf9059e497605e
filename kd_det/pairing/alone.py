"""The training of a detector alone: its own recipe, on the data, at the length."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from kd_det.errors import InvalidInputError, MissingPackageError
from kd_det.pairing.data import Data
from kd_det.pairing.detectors import MMCV_SYNC_BN, Detector
from kd_det.pairing.schedule import list_hooks, set_length
from kd_det.pairing.start_weights import nested_dicts
from kd_det.registry import as_list, type_name

# Set by the pairing, or part of the model.
NOT_TAKEN = ("model", "data_preprocessor", "load_from", "resume", "work_dir", "launcher")
NEEDED = dict(default_scope="mmdet", val_cfg=dict(type="ValLoop"), test_cfg=dict(type="TestLoop"))
SCHEDULE = ("train_cfg", "param_scheduler", "optim_wrapper", "auto_scale_lr")
OUR_HOOKS = dict(
    exact_resume="kd_det.ExactResumeHook",
    finite_loss="kd_det.FiniteLossHook",
    step_time="kd_det.StepTimeHook",
    student_export="kd_det.StudentExportHook",
)
# Hooks with no place in the training, each with the reason.
NOT_KEPT = dict(
    MeanTeacherHook="it averages the student into a teacher, which is fixed here",
)
# Transforms that need a package beside mmdet's.
PACKAGES = dict(Albu="albumentations", InstaBoost="instaboostfast", Corrupt="imagecorruptions")
# Transforms that keep images of former batches in each worker.
CACHED = ("CachedMosaic", "CachedMixUp")


def make_alone(
    detector: Detector,
    data: Data,
    coco: Mapping[str, Any],
    same_data: bool,
    epochs: int | None = None,
    batch_size: int | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Make the config with which a detector is trained alone, a student or a teacher.

    It is the detector's whole config, with the data, the length and kd_det's hooks for any
    training. A distillation adds the teacher to the student's and changes nothing else.

    Args:
        detector: The detector, with the classes of the data.
        data: Data loaders and evaluators.
        coco: A config of COCO, for what the detector's lacks.
        same_data: Whether the data are those of the detector's config.
        epochs: The length; None keeps the detector's.
        batch_size: Images of one process; None keeps the detector's.

    Returns:
        The config, and what was decided.

    Raises:
        kd_det.errors.InvalidInputError: For a number below 1, or a length that cannot be set.
        kd_det.errors.MissingPackageError: If a transform needs a package that is not installed.
    """
    cfg = {key: copy.deepcopy(each) for key, each in detector.cfg.items() if key not in NOT_TAKEN}
    decisions = [detector.start] if detector.start else []
    schedule = _complete(cfg, coco, detector.who, decisions)
    cfg.update(copy.deepcopy(data.settings), model=copy.deepcopy(detector.model_cfg))
    own_batch = cfg["train_dataloader"].get("batch_size", 1)
    if batch_size is not None:
        if batch_size < 1:
            raise InvalidInputError(f"expected a batch size >= 1, found {batch_size}")
        cfg["train_dataloader"]["batch_size"] = batch_size
    _leave_hooks_out(cfg, detector.who, decisions)
    length, *changes = set_length(cfg, epochs, data.images, same_data, own_batch)
    decisions += [f"schedule: {schedule}, {length}", *changes]
    _add_hooks(cfg, decisions)
    _set_seed(cfg, detector.who, decisions)
    _check_transforms(cfg["train_dataloader"], detector.who, decisions)
    _say_drawn_sizes(cfg["model"], decisions)
    if any(part.get("type") == MMCV_SYNC_BN for part in nested_dicts(detector.cfg["model"])):
        decisions.append(
            f"norm {MMCV_SYNC_BN} of the {detector.who}'s config, which needs a compiled mmcv and "
            "several processes, is SyncBN, PyTorch's"
        )
    if "kd_det:" in str(cfg["model"].get("init_cfg")):
        add_imports(cfg, ["kd_det.algorithms.checkpoint"])
    cfg.update(load_from=None, resume=False)
    return cfg, decisions


def _complete(cfg: dict[str, Any], coco: Mapping[str, Any], who: str, decisions: list[str]) -> str:
    """Add what a training needs and the config lacks; returns whose schedule it is."""
    for key, value in NEEDED.items():
        cfg[key] = cfg.get(key) or copy.deepcopy(value)
    lacking = [key for key in ("train_cfg", "optim_wrapper") if not cfg.get(key)]
    if not lacking:
        return f"the {who}'s own"
    taken = SCHEDULE if len(lacking) == 2 else lacking
    # A learning rate is that of a batch, and a loop without its schedule another one.
    more = dict(optim_wrapper=["auto_scale_lr"], train_cfg=["param_scheduler"])
    for key in dict.fromkeys([*taken, *(each for name in lacking for each in more[name])]):
        cfg[key] = copy.deepcopy(coco[key])
    if len(lacking) == 2:
        return f"kd_det's 1x for COCO, since the {who}'s config has none"
    decisions.append(f"the {who}'s config has no {lacking[0]}: kd_det's for COCO is taken")
    return f"the {who}'s own but for {lacking[0]}"


def _leave_hooks_out(cfg: dict[str, Any], who: str, decisions: list[str]) -> None:
    own = cfg.get("custom_hooks") or []
    kept = [hook for hook in own if type_name(hook) not in NOT_KEPT]
    for name in dict.fromkeys(type_name(hook) for hook in own if hook not in kept):
        decisions.append(f"hook {name} of the {who}'s config is left out: {NOT_KEPT[name]}")
    if kept:
        listed = ", ".join(type_name(hook) for hook in kept)
        decisions.append(f"hooks of the {who}'s config are kept: {listed}")
    cfg["custom_hooks"] = kept


def _add_hooks(cfg: dict[str, Any], decisions: list[str]) -> None:
    """kd_det's for any training, unless the config has them, and the best checkpoint."""
    default = dict(cfg.get("default_hooks") or {})
    there = {type_name(hook) for hook in list_hooks(cfg)}
    for name, kind in OUR_HOOKS.items():
        if type_name(kind) not in there:
            default[name] = dict(type=kind)
    checkpoint = default.setdefault("checkpoint", dict(type="CheckpointHook", interval=1))
    if checkpoint and type_name(checkpoint) == "CheckpointHook" and not checkpoint.get("save_best"):
        checkpoint["save_best"] = _main_metric(cfg.get("val_evaluator"))
        decisions.append(
            f"the best checkpoint is kept too (default_hooks.checkpoint.save_best "
            f"{checkpoint['save_best']})"
        )
    cfg["default_hooks"] = default


def _main_metric(evaluator: Any) -> str:
    first = next(iter(as_list(evaluator)), None)
    if not isinstance(first, dict) or type_name(first) != "CocoMetric":
        return "auto"
    return "coco/bbox_mAP" if "bbox" in as_list(first.get("metric", "bbox")) else "auto"


def _check_transforms(loader: dict[str, Any], who: str, decisions: list[str]) -> None:
    kinds = {type_name(part) for part in nested_dicts(loader) if "type" in part}
    for name, package in PACKAGES.items():
        if name in kinds and find_spec(package) is None:
            raise MissingPackageError(
                f"the {who}'s pipeline has the transform {name}, which needs {package}: "
                f"pip install {package}, or take it out of the pipeline"
            )
    if cached := [name for name in CACHED if name in kinds]:
        decisions.append(
            f"{', '.join(cached)} mix images that each worker keeps, and a resumed training begins "
            "with none: it draws others than one that was never interrupted"
        )


def _say_drawn_sizes(model_cfg: dict[str, Any], decisions: list[str]) -> None:
    preprocessor = model_cfg.get("data_preprocessor") or {}
    for each in as_list(preprocessor.get("batch_augments")):
        if type_name(each) == "BatchSyncRandomResize":
            decisions.append(
                "BatchSyncRandomResize keeps the size that it drew for "
                f"{each.get('interval', 10)} iterations, and a resumed training begins with that "
                "of its images until the next draw"
            )


def _set_seed(cfg: dict[str, Any], who: str, decisions: list[str]) -> None:
    randomness = cfg.get("randomness") or {}
    if randomness.get("seed") is None:
        cfg["randomness"] = dict(randomness, seed=0)
        decisions.append(f"randomness.seed is 0, since the {who}'s config has none")


def add_imports(cfg: dict[str, Any], names: list[str]) -> None:
    """Let a config import modules too."""
    own = cfg.get("custom_imports") or {}
    there = as_list(own.get("imports"))
    if names:
        merged = list(dict.fromkeys([*there, *names]))
        cfg["custom_imports"] = dict(dict(allow_failed_imports=False), **own) | dict(imports=merged)
