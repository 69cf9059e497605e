"""The config of a student alone, which MMDetection (or MMPretrain) reads without this package."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config
from mmengine.hub import get_config

from kd_det.errors import InvalidInputError
from kd_det.optim import settings_of_student
from kd_det.registry import type_name

# Packages of the distillation, which a student alone must not need.
DISTILLATION = ("kd_det", "mmrazor")
# MMEngine's, of a model that is named by its config.
HUB_OPTIONS = ("cfg_path", "pretrained")
# A Runner requires all options of a group or none.
TRAIN = ("train_dataloader", "train_cfg", "optim_wrapper")
VAL = ("val_dataloader", "val_cfg", "val_evaluator")
TEST = ("test_dataloader", "test_cfg", "test_evaluator")
ONLY_TRAINING = ("param_scheduler", "auto_scale_lr")
OTHERS = (
    *("default_scope", "env_cfg", "randomness", "log_processor", "log_level", "visualizer"),
    *("tta_model", "tta_pipeline"),
)


@dataclass(frozen=True)
class PlainConfig:
    """A student's config.

    Args:
        cfg: With the student as ``model``.
        text: Its Python file; formatted once, since that takes a second.
        left_out: Parts that were left out, each with the reason, for the log.
        requires: Packages of :data:`DISTILLATION` that have modules of the student itself.
    """

    cfg: Config
    text: str
    left_out: list[str]
    requires: list[str]


def plain_config(cfg: Config) -> PlainConfig:
    """Make the config of a run without its distillation.

    The model is the student as it was evaluated, with the data preprocessor of the algorithm
    around it, and nothing that would download weights. Data, evaluators, loops, optimizer and hooks
    stay where all of their types are plain. A run without distillation keeps its model.

    Args:
        cfg: The resolved config of a run, as it lies in a work directory.

    Raises:
        ValueError: If the config has no model, or the default scope of one of :data:`DISTILLATION`.
    """
    cfg = Config(cfg.to_dict(), format_python_code=cfg._format_python_code)
    scope = "mmpretrain" if cfg.get("default_scope") == "mmcls" else cfg.get("default_scope")
    if not isinstance(cfg.get("model"), dict) or scope in (None, *DISTILLATION):
        raise InvalidInputError(
            "expected a config with a model and a default_scope such as 'mmdet' or 'mmpretrain', "
            f"found model {type(cfg.get('model')).__name__} and default_scope {scope!r}"
        )
    cfg.default_scope = scope
    _use_plain_loops(cfg)
    if cfg.get("optim_wrapper"):
        _rename_parameters(cfg.optim_wrapper)
    parts: dict[str, Any] = dict(model=_student(cfg))
    left_out = []
    for options in (*((name,) for name in OTHERS), TRAIN, VAL, TEST):
        group = {name: cfg[name] for name in options if cfg.get(name) is not None}
        if names := _names_in(group):
            left_out.append(f"{', '.join(group)} (for {', '.join(names)})")
        elif len(group) == len(options):
            parts |= group
    if "train_cfg" in parts:
        parts |= {name: cfg[name] for name in ONLY_TRAINING if cfg.get(name) is not None}
    hooks = cfg.get("default_hooks") or {}
    parts["default_hooks"] = {name: hook for name, hook in hooks.items() if not _names_in(hook)}
    parts["custom_hooks"] = [hook for hook in cfg.get("custom_hooks") or [] if not _names_in(hook)]
    if imports := _other_imports(cfg):
        parts["custom_imports"] = imports
    parts.update(load_from=None, resume=False, launcher="none")
    plain = Config(_renamed(parts), format_python_code=cfg._format_python_code)
    requires = sorted({name.split(".")[0] for name in _names_in(plain.model)})
    return PlainConfig(plain, plain.pretty_text, left_out, requires)


def _student(cfg: Config) -> dict[str, Any]:
    model, preprocessor = cfg.model, cfg.get("data_preprocessor")
    if "architecture" in model:
        # The algorithm's preprocessor makes the student's batches; the Runner gives it its own.
        preprocessor = model.get("data_preprocessor") or preprocessor
        model = model.architecture
        if "cfg_path" in model:  # MMRazor's way to name the model of another config
            other = get_config(model.cfg_path)
            preprocessor = preprocessor or other.get("data_preprocessor")
            defaults = {key: each for key, each in model.items() if key not in HUB_OPTIONS}
            model = {**defaults, **other.model}
    else:
        preprocessor = model.get("data_preprocessor") or preprocessor
    model = _without_pretrained(dict(model))
    if not preprocessor:
        return model
    if type_name(model) == "ImageClassifier":
        preprocessor = _for_classifier(preprocessor)
    return {**model, "data_preprocessor": preprocessor}


def _for_classifier(preprocessor: dict[str, Any]) -> dict[str, Any]:
    """Replace MMEngine's ``ImgDataPreprocessor``, which MMPretrain's classifiers do not take.

    MMPretrain's own computes the same.
    """
    if type_name(preprocessor) != "ImgDataPreprocessor":
        return preprocessor
    same = ("mean", "std", "pad_size_divisor", "pad_value")
    return dict(
        type="ClsDataPreprocessor",
        to_rgb=any(preprocessor.get(key, False) for key in ("bgr_to_rgb", "rgb_to_bgr")),
        **{key: preprocessor[key] for key in same if key in preprocessor},
    )


def _without_pretrained(model: Any) -> Any:
    """Drop the weights that modules would be initialised with, which may be a download."""
    return _rebuild(model, keeps=lambda key, each: not _loads_weights(key, each))


def _loads_weights(key: str, value: Any) -> bool:
    if key != "init_cfg":
        return key == "pretrained"
    every = value if isinstance(value, (list, tuple)) else [value]
    # PretrainedInit is its class, which configs in the new style name.
    return any(
        isinstance(each, dict) and type_name(each) in ("Pretrained", "PretrainedInit")
        for each in every
    )


def _rebuild(
    value: Any,
    keeps: Callable[[str, Any], bool] = lambda *_: True,
    change: Callable[[Any], Any] = lambda leaf: leaf,
) -> Any:
    """Copy nested dicts, lists and tuples; without entries that ``keeps`` denies."""
    if isinstance(value, dict):
        return {k: _rebuild(v, keeps, change) for k, v in value.items() if keeps(k, v)}
    if isinstance(value, (list, tuple)):
        items = (_rebuild(each, keeps, change) for each in value)
        # Not type(value): a named tuple is not made of one iterable.
        return list(items) if isinstance(value, list) else tuple(items)
    return change(value)


def _use_plain_loops(cfg: Config) -> None:
    """Replace loops that also evaluate the teacher by MMEngine's."""
    for name, loop in (("val_cfg", "ValLoop"), ("test_cfg", "TestLoop")):
        if cfg.get(name) is not None and _names_in(cfg[name]):
            cfg[name] = dict(type=loop)


def _rename_parameters(optim_wrapper: dict[str, Any]) -> None:
    """Restore the student's own constructor and names of parameters; drop connectors' settings."""
    own = optim_wrapper.pop("student_constructor", None)
    if type_name(optim_wrapper.get("constructor")) == "DistillOptimWrapperConstructor":
        del optim_wrapper["constructor"]
        if own is not None:
            optim_wrapper["constructor"] = own
    paramwise = settings_of_student(optim_wrapper.pop("paramwise_cfg", None) or {})
    if paramwise:
        optim_wrapper["paramwise_cfg"] = paramwise


def _other_imports(cfg: Config) -> dict[str, Any] | None:
    found = cfg.get("custom_imports") or {}
    names = found.get("imports") or []
    names = [names] if isinstance(names, str) else names
    kept = [name for name in names if name.split(".")[0] not in DISTILLATION]
    return {**found, "imports": kept} if kept else None


def _names_in(value: Any) -> list[str]:
    """List the names from packages of the distillation in a part of a config, each once."""
    return list(dict.fromkeys(_find(value)))


def _find(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, each in value.items():
            if key == "_scope_" and each in DISTILLATION:
                yield f"{each}.{value.get('type')}"
            yield from _find(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _find(each)
    elif isinstance(value, str):
        if re.match(rf"({'|'.join(DISTILLATION)})(\.|::)", value):
            yield value
    elif getattr(value, "__module__", "").split(".")[0] in DISTILLATION:
        yield f"{value.__module__}.{getattr(value, '__qualname__', type(value).__name__)}"


def _renamed(value: Any) -> Any:
    """Replace MMPretrain's old name, which plain MMEngine does not know."""
    old = re.compile(r"^mmcls(?=\.|$)")
    return _rebuild(value, change=lambda x: old.sub("mmpretrain", x) if isinstance(x, str) else x)
