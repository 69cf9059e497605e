"""Check what ``--resume`` goes on with: the same config, or one whose changes are allowed."""

from __future__ import annotations

import copy
import inspect
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner, find_latest_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from kd_det.algorithms.checkpoint import CheckpointError
from kd_det.errors import InvalidInputError
from kd_det.literals import read_assignments

# Parts of a config that decide the weights.
COMPARED = (
    "model", "data_preprocessor", "train_dataloader", "val_dataloader", "val_evaluator",
    "train_cfg", "optim_wrapper", "param_scheduler", "auto_scale_lr", "custom_hooks",
    "default_hooks", "randomness",
)  # fmt: skip
# Entries that change neither weights nor metrics.
IGNORED = re.compile(
    r"\w+_dataloader\.(num_workers|persistent_workers|pin_memory|prefetch_factor)"
    r"|val_dataloader\.batch_size"
    r"|default_hooks\.(logger|timer|step_time|visualization|checkpoint|runtime_info)(\..*)?"
    r"|custom_hooks\.\d+\.interval"
    r"|model\.speed\.cache_teacher(\..*)?"
    r"|randomness\.(deterministic|diff_rank_seed)"
    r"|train_cfg\.(val_interval|val_begin|type|by_epoch)"
)
# Entries that follow from the length of training, which may be changed on the way.
SCHEDULE = re.compile(
    r"param_scheduler(\..*)?|train_cfg\.(max_epochs|max_iters|dynamic_intervals)(\..*)?"
    r"|custom_hooks\.\d+\.(switch_epoch|num_last_epochs|begin|end|begin_epoch|end_epoch)"
)
SHOWN = 5


@dataclass(frozen=True)
class Resumed:
    """A checkpoint of a training, and how the config differs from its own.

    Args:
        path: The checkpoint.
        shapes: Of its weights, by name.
        groups: Number of parameters in each group of its optimizer; None if it has several.
        changes: What differs, in words; of the schedule alone, or allowed.
    """

    path: str
    shapes: dict[str, tuple[int, ...]]
    groups: list[int] | None
    changes: list[str]


def check_resume(cfg: Config, allow_changes: bool = False) -> Resumed | None:
    """Compare a config that says ``resume`` with the one that its checkpoint was made with.

    Args:
        cfg: The config. Its checkpoint is ``load_from``, or the last one in its work directory.
        allow_changes: Whether more than the schedule may differ.

    Returns:
        The checkpoint; None if there is no checkpoint yet.

    Raises:
        CheckpointError: If the file is no checkpoint of a training.
        InvalidInputError: If the configs differ; says in what.
    """
    path = cfg.get("load_from") or find_latest_checkpoint(cfg.work_dir)
    if path is None or not ("://" in path or Path(path).is_file()):
        return None
    content = _read_checkpoint(path)
    changes = list(
        compare_configs(_read_config(content["meta"], path) or cfg.to_dict(), cfg.to_dict())
    )
    forbidden = [text for key, text in changes if not SCHEDULE.fullmatch(key)]
    if forbidden and not allow_changes:
        more = f" and {len(forbidden) - SHOWN} more" if len(forbidden) > SHOWN else ""
        raise InvalidInputError(
            f"cannot resume {path}, its config was another: {'; '.join(forbidden[:SHOWN])}{more}. "
            "Train in another --work-dir, or take the changes over with --allow-changes"
        )
    groups = content["optimizer"].get("param_groups")
    return Resumed(
        path,
        {key: tuple(value.shape) for key, value in content["state_dict"].items()},
        groups and [len(group["params"]) for group in groups],
        [text for _, text in changes],
    )


def _read_checkpoint(path: str) -> dict[str, Any]:
    try:
        content = CheckpointLoader.load_checkpoint(path, map_location="cpu")
    except OSError:
        raise
    except Exception as error:  # the restricted unpickler fails in many ways on arbitrary bytes
        raise CheckpointError(
            f"cannot resume {path}: expected a checkpoint of a training, found a file that torch "
            f"cannot read ({type(error).__name__})"
        ) from error
    meta = content.get("meta") if isinstance(content, dict) else None
    lacking = [key for key in ("state_dict", "optimizer", "message_hub") if key not in content]
    lacking += [f"meta.{key}" for key in ("epoch", "iter") if key not in (meta or {})]
    if lacking:
        raise CheckpointError(
            f"cannot resume {path}: expected a checkpoint of a training, found no "
            f"{', '.join(lacking)}. To start from its weights: --cfg-options load_from={path}"
        )
    if "config" in content["meta"]:
        raise CheckpointError(
            f"cannot resume {path}: it has a config in the form of old versions of mmcv, which "
            "MMEngine would execute"
        )
    return content


def _read_config(meta: Mapping[str, Any], path: str) -> dict[str, Any] | None:
    """The config in a checkpoint, read without executing it."""
    try:
        return read_assignments(meta["cfg"])
    except (KeyError, TypeError, SyntaxError, ValueError):
        print(f"warning: {path} does not say with which config it was made, which is not compared")
        return None


def compare_configs(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Dotted keys of what differs and matters for training, each with a text that says how."""
    parts = [
        {key: _normalise(cfg.get(key), str(cfg.get("work_dir"))) for key in COMPARED}
        for cfg in (old, new)
    ]
    for cfg in parts:
        if not (cfg["auto_scale_lr"] or {}).get("enable"):
            cfg["auto_scale_lr"] = None
        if not isinstance(cfg["param_scheduler"], list):
            cfg["param_scheduler"] = [cfg["param_scheduler"]] if cfg["param_scheduler"] else []
    yield from _differences("", *parts)


def _normalise(value: Any, work_dir: str) -> Any:
    """A value as a config's text keeps it, with paths in the work directory made relative."""
    if isinstance(value, Mapping):
        return {str(key): _normalise(each, work_dir) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_normalise(each, work_dir) for each in value]
    if inspect.isclass(value) or inspect.isfunction(value):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, str) and value.startswith(f"{work_dir}/"):
        return f"<work_dir>{value.removeprefix(work_dir)}"
    return value


def _differences(key: str, old: Any, new: Any) -> Iterator[tuple[str, str]]:
    if old == new or IGNORED.fullmatch(key):
        return
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        old, new = (dict(zip(map(str, range(len(each))), each)) for each in (old, new))
    if isinstance(old, dict) and isinstance(new, dict) and old.get("type") == new.get("type"):
        for name in {**old, **new}:
            values = old.get(name), new.get(name)  # None is what is not there
            yield from _differences(f"{key}.{name}".lstrip("."), *values)
    else:
        yield key, f"{key} {_shown(old)}, now {_shown(new)}"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return f"a {value['type']}" if "type" in value else "a dict"
    if isinstance(value, list) and len(repr(value)) > 40:
        return f"a list of {len(value)}"
    return "nothing" if value is None else repr(value)


class ApplyChanges(Hook):
    """Lets a resumed run follow its new optimizer settings and schedule.

    MMEngine restores learning rates and schedulers as the checkpoint has them, so that a new
    schedule would be ignored. Here they become what they would be, had the run begun with it.
    """

    priority = "VERY_HIGH"

    def __init__(self, resumed: Resumed) -> None:
        self._resumed = resumed

    def before_run(self, runner: Runner) -> None:
        """Check that the checkpoint fits, and keep optimizer and schedulers as they were built."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        found = {key: tuple(value.shape) for key, value in model.state_dict().items()}
        other = [
            key
            for key in sorted({*found, *self._resumed.shapes})
            if found.get(key) != self._resumed.shapes.get(key)
        ]
        groups = [
            len(group["params"])
            for wrapper in _wrappers(runner)
            for group in wrapper.optimizer.param_groups
        ]
        if other or self._resumed.groups not in (None, groups):
            what = f"other weights: {', '.join(other[:SHOWN])}" if other else "another optimizer"
            raise InvalidInputError(
                f"cannot resume {self._resumed.path}: this config has {what}. To start from its "
                "weights, train in another --work-dir with --cfg-options "
                f"load_from={self._resumed.path}"
            )
        self._groups = [
            [{k: v for k, v in group.items() if k != "params"} for group in wrapper.param_groups]
            for wrapper in _wrappers(runner)
        ]
        self._states = [copy.deepcopy(each.state_dict()) for each in _schedulers(runner)]

    def before_train(self, runner: Runner) -> None:
        """Bring schedulers from the beginning to this place in training."""
        # A wrapper's groups are its optimizer's, and one for the base values that it logs.
        for wrapper, groups in zip(_wrappers(runner), self._groups):
            for group, settings in zip(wrapper.param_groups, groups):
                group.update(settings)
        schedulers = _schedulers(runner)
        for scheduler, state in zip(schedulers, self._states):
            scheduler.load_state_dict(state)
        per_epoch = runner.iter // runner.epoch if runner.epoch else runner.iter + 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch wants an optimizer's step before each
            for iteration in range(1, runner.iter + 1):
                ends_epoch = iteration % per_epoch == 0
                for scheduler in schedulers:
                    if ends_epoch or not scheduler.by_epoch:
                        scheduler.step()
        runner.logger.info(
            f"Resumed with changes, which act from here on: {'; '.join(self._resumed.changes)}"
        )


def _wrappers(runner: Runner) -> list[OptimWrapper]:
    wrapper = runner.optim_wrapper
    return list(wrapper.values()) if isinstance(wrapper, OptimWrapperDict) else [wrapper]


def _schedulers(runner: Runner) -> list[Any]:
    found = runner.param_schedulers or []
    return [s for each in found.values() for s in each] if isinstance(found, dict) else found
