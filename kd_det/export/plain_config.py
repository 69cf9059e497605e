"""The config of a student alone, which MMDetection (or MMPretrain) reads without this package."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config
from mmengine.hub import get_config

from kd_det.errors import InvalidInputError
from kd_det.registry import type_name

# Packages that a student must not need.
OURS = ("kd_det", "mmrazor")
# MMEngine's, of a model that is named by its config.
HUB_OPTIONS = ("cfg_path", "pretrained")
# What a Runner takes all of or nothing of.
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
        text: Its Python file; to format it takes a second, so it is done once.
        left_out: Parts that it lacks, each with the reason, for the log.
        requires: Packages of ``OURS`` that the student itself has modules of.
    """

    cfg: Config
    text: str
    left_out: list[str]
    requires: list[str]


def plain_config(cfg: Config) -> PlainConfig:
    """The config of a run without its distillation.

    The model is the student as it was evaluated, with the data preprocessor of the algorithm
    around it, and nothing that would download weights. Data, evaluators, loops, optimizer and hooks
    stay where all of their types are plain. A run without distillation keeps its model.

    Args:
        cfg: The resolved config of a run, as it lies in a work directory.

    Raises:
        ValueError: If the config has no model, or a default scope of ours.
    """
    cfg = Config(cfg.to_dict(), format_python_code=cfg._format_python_code)
    scope = "mmpretrain" if cfg.get("default_scope") == "mmcls" else cfg.get("default_scope")
    if not isinstance(cfg.get("model"), dict) or scope in (None, *OURS):
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
    for names in (*((name,) for name in OTHERS), TRAIN, VAL, TEST):
        group = {name: cfg[name] for name in names if cfg.get(name) is not None}
        if ours := _ours(group):
            left_out.append(f"{', '.join(group)} (for {', '.join(ours)})")
        elif len(group) == len(names):
            parts |= group
    if "train_cfg" in parts:
        parts |= {name: cfg[name] for name in ONLY_TRAINING if cfg.get(name) is not None}
    hooks = cfg.get("default_hooks") or {}
    parts["default_hooks"] = {name: hook for name, hook in hooks.items() if not _ours(hook)}
    parts["custom_hooks"] = [hook for hook in cfg.get("custom_hooks") or [] if not _ours(hook)]
    if imports := _other_imports(cfg):
        parts["custom_imports"] = imports
    parts.update(load_from=None, resume=False, launcher="none")
    plain = Config(_renamed(parts), format_python_code=cfg._format_python_code)
    requires = sorted({name.split(".")[0] for name in _ours(plain.model)})
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
    """What MMPretrain's classifier has in place of MMEngine's ``ImgDataPreprocessor``.

    MMRazor's algorithms take that one, a classifier does not; both compute the same.
    """
    if type_name(preprocessor) != "ImgDataPreprocessor":
        return preprocessor
    same = ("mean", "std", "pad_size_divisor", "pad_value")
    return dict(
        type="ClsDataPreprocessor",
        to_rgb=any(preprocessor.get(key, False) for key in ("bgr_to_rgb", "rgb_to_bgr")),
        **{key: preprocessor[key] for key in same if key in preprocessor},
    )


def _without_pretrained(value: Any) -> Any:
    """Without the weights that models would be initialised with, which may be a download."""
    if isinstance(value, dict):
        return {
            key: _without_pretrained(each)
            for key, each in value.items()
            if not (key == "pretrained" or (key == "init_cfg" and _is_pretrained(each)))
        }
    if isinstance(value, (list, tuple)):
        return _sequence(map(_without_pretrained, value), value)
    return value


def _is_pretrained(init_cfg: Any) -> bool:
    every = init_cfg if isinstance(init_cfg, (list, tuple)) else [init_cfg]
    # PretrainedInit is its class, which configs in the new style name.
    return any(
        isinstance(each, dict) and type_name(each) in ("Pretrained", "PretrainedInit")
        for each in every
    )


def _sequence(items: Iterable[Any], like: list | tuple) -> list | tuple:
    """A list or a tuple; configs hold no other, and a named tuple is not made of one iterable."""
    return list(items) if isinstance(like, list) else tuple(items)


def _use_plain_loops(cfg: Config) -> None:
    """A loop that also evaluates the teacher becomes the one that evaluates a model."""
    for name, loop in (("val_cfg", "ValLoop"), ("test_cfg", "TestLoop")):
        if cfg.get(name) is not None and _ours(cfg[name]):
            cfg[name] = dict(type=loop)


def _rename_parameters(optim_wrapper: dict[str, Any]) -> None:
    """Optimize as the student alone: its constructor, its names of parameters, no connectors."""
    own = optim_wrapper.pop("student_constructor", None)
    if type_name(optim_wrapper.get("constructor")) == "DistillOptimWrapperConstructor":
        del optim_wrapper["constructor"]
        if own is not None:
            optim_wrapper["constructor"] = own
    paramwise = optim_wrapper.get("paramwise_cfg") or {}
    if keys := paramwise.pop("custom_keys", None):
        kept = {
            key.removeprefix("architecture."): value
            for key, value in keys.items()
            if not key.startswith(("distiller", "teacher"))
        }
        if kept:
            paramwise["custom_keys"] = kept
    if not paramwise:
        optim_wrapper.pop("paramwise_cfg", None)


def _other_imports(cfg: Config) -> dict[str, Any] | None:
    found = cfg.get("custom_imports") or {}
    names = found.get("imports") or []
    names = [names] if isinstance(names, str) else names
    kept = [name for name in names if name.split(".")[0] not in OURS]
    return {**found, "imports": kept} if kept else None


def _ours(value: Any) -> list[str]:
    """What a part of a config names of ``OURS``, each once."""
    return list(dict.fromkeys(_find(value)))


def _find(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, each in value.items():
            if key == "_scope_" and each in OURS:
                yield f"{each}.{value.get('type')}"
            yield from _find(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _find(each)
    elif isinstance(value, str):
        if value.startswith(tuple(f"{name}{sign}" for name in OURS for sign in (".", "::"))):
            yield value
    elif getattr(value, "__module__", "").split(".")[0] in OURS:
        yield f"{value.__module__}.{getattr(value, '__qualname__', type(value).__name__)}"


def _renamed(value: Any) -> Any:
    """MMPretrain under its name of today, which plain MMEngine knows alone."""
    if isinstance(value, dict):
        return {key: _renamed(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return _sequence(map(_renamed, value), value)
    if isinstance(value, str) and (value == "mmcls" or value.startswith("mmcls.")):
        return value.replace("mmcls", "mmpretrain", 1)
    return value
