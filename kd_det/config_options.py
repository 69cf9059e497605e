"""Override entries of a config by dotted keys, and refuse those that have no place in it."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from mmengine.config import Config

from kd_det.errors import InvalidInputError

# What MMEngine's Runner and mmdet look up in the config beside the Runner's own arguments.
RUNNER_KEYS = (
    "activation_checkpointing", "compile", "custom_imports", "efficient_conv_bn_eval",
    "find_unused_parameters", "model_wrapper_cfg", "runner_type", "sync_bn", "tta_model",
    "tta_pipeline",
)  # fmt: skip


def merge_options(cfg: Config, options: Mapping[str, Any] | None) -> None:
    """Override entries of a config by dotted keys, as ``--cfg-options`` does.

    Raises:
        InvalidInputError: For a key that has no place in the config; names it.
    """
    for key, value in (options or {}).items():
        _check(cfg, key)
        cfg.merge_from_dict({key: value})


def _check(cfg: Config, key: str) -> None:
    names = key.split(".")
    node: Any = cfg
    for i, name in enumerate(names):
        where = ".".join(names[:i])
        if isinstance(node, (list, tuple)):
            if not name.isdigit() or int(name) >= len(node):
                raise InvalidInputError(
                    f"{key}: {where} is a list of {len(node)}; expected an index below that, "
                    f"found {name!r}"
                )
            node = node[int(name)]
        elif not isinstance(node, (Mapping, Config)):
            if node is None and not name.isdigit():
                return  # MMEngine refuses it; None stands for what is switched off
            raise InvalidInputError(f"{key}: {where} is {node!r}, which has no {name!r}")
        elif name in node:
            node = node[name]
        else:
            _check_name(cfg, node, key, where, name)
            # A new dict may hold anything, but no list can begin with a part of one item.
            numbers = [j for j in range(i, len(names)) if names[j].isdigit()]
            if numbers:
                there = ".".join(names[: numbers[0]])
                raise InvalidInputError(
                    f"{key}: the config has no list {there}; set it as a whole: "
                    f"{there}=[dict(type=...)]"
                )
            return


def _check_name(cfg: Config, node: Any, key: str, where: str, name: str) -> None:
    """Refuse names at the top, and options of the model, that nothing reads."""
    known: set[str] = set()
    if isinstance(node, Config):
        from mmengine.runner import Runner

        known = {*node, *RUNNER_KEYS, *inspect.signature(Runner).parameters}
    elif where == "model":
        known = _arguments(node.get("type"), cfg.get("default_scope"))
    if known and name not in known:
        expected: Iterable[str] = get_close_matches(name, known, 3) or sorted(known)
        raise InvalidInputError(
            f"{key}: {where or 'a config'} has no {name!r}; expected one of {', '.join(expected)}"
        )


def _arguments(kind: Any, scope: str | None) -> set[str]:
    """The arguments of a model's class; empty if the class is unknown, or takes any."""
    from kd_det.registry import MODELS

    if isinstance(kind, str):
        kind = MODELS.get(kind if "." in kind or not scope else f"{scope}.{kind}")
    cls = kind
    found: set[str] = set()
    for each in inspect.getmro(cls) if inspect.isclass(cls) else ():
        if "__init__" not in vars(each):
            continue
        own = inspect.signature(vars(each)["__init__"]).parameters.values()
        found |= {p.name for p in own if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
        # Where further ones are handed on, the next class says which.
        if not any(p.kind is p.VAR_KEYWORD for p in own):
            return found - {"self"}
    return set()
