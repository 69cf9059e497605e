"""Digests of what a result depends on, so that a result of something else is not reused."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

ANN_KEYS = ("image_id", "category_id", "bbox", "area", "iscrowd")


def digest(*values: Any) -> str:
    """Compute a SHA-256 of configs and objects: types, options and contents, in any nesting.

    A dataset counts with its annotations as it read them, its paths and its pipeline, a data
    preprocessor with its buffers. What is random, open or compiled (generators, files, functions)
    counts by its type or name alone. Another process computes the same digest.
    """
    return _sha256([_describe(value, {}) for value in values])


def digest_dataset(dataset: Any) -> str:
    """Compute the digest of a dataset: annotations, paths, filters, pipeline."""
    if hasattr(dataset, "full_init"):  # MMEngine's may read their annotations later
        dataset.full_init()
    return digest(dataset)


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _describe(value: Any, seen: dict[int, tuple[Any, Any]]) -> Any:
    """Describe a value in JSON's terms.

    ``seen`` has, by its id, each value met so far (so that the id stays its own) with its
    description.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (bytes, np.ndarray, Tensor, np.generic)):
        return _describe_array(value)
    if isinstance(value, (type, Path)) or hasattr(value, "__qualname__"):  # class or function
        return getattr(value, "__qualname__", str(value))
    if id(value) not in seen:
        name = type(value).__qualname__
        seen[id(value)] = value, name  # for an object that holds itself
        if isinstance(value, (Mapping, list, tuple)):
            found = _describe_container(value, seen)
        elif isinstance(value, (set, frozenset)):
            found = [name, sorted(map(str, value))]
        elif isinstance(value, logging.Logger):  # its file is named by the time
            found = name
        else:
            found = [name, _describe_container(_state(value), seen)]
        seen[id(value)] = value, found
    return seen[id(value)][1]


def _describe_container(value: Any, seen: dict[int, tuple[Any, Any]]) -> Any:
    try:  # fast, for annotations
        return _sha256(value)
    except (TypeError, ValueError):
        pass
    if isinstance(value, Mapping):
        return sorted([str(key), _describe(each, seen)] for key, each in value.items())
    return [_describe(each, seen) for each in value]


def _describe_array(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item() if isinstance(value, (np.number, np.bool_)) else str(value)
    if isinstance(value, bytes):
        return ["bytes", hashlib.sha256(value).hexdigest()]
    kind = f"{value.dtype} {list(value.shape)}"
    if isinstance(value, Tensor):
        value = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    elif value.dtype.hasobject:
        return [kind, [str(each) for each in value.flat]]
    return [kind, hashlib.sha256(np.ascontiguousarray(value).data).hexdigest()]


def _state(value: Any) -> Mapping[str, Any]:
    """Return the attributes of an object that say what it does."""
    state = getattr(value, "__dict__", {})
    if isinstance(value, nn.Module):
        # Not whether it trains, or what is hooked on to it.
        simple = (bool, int, float, str)
        kept = {k: v for k, v in state.items() if not k.startswith("_") or isinstance(v, simple)}
        kept = {k: v for k, v in kept.items() if k not in ("training", "_is_init")}
        return {**kept, **dict(value.named_buffers(recurse=False)), **dict(value.named_children())}
    if isinstance(value, partial):
        return {"func": value.func, "args": value.args, "keywords": value.keywords, **state}
    if "imgToAnns" in state and "dataset" in state:  # pycocotools' index
        # What an evaluation reads of annotations, and does not write into them.
        annotations = state["dataset"].get("annotations", [])
        read = [[annotation.get(key) for key in ANN_KEYS] for annotation in annotations]
        return {**state["dataset"], "annotations": read}
    return state
