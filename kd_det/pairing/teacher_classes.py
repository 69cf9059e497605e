"""Compare the classes of the teacher's checkpoint with those of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kd_det.algorithms.checkpoint import class_names, read_weights
from kd_det.datasets.class_order import find_moved
from kd_det.pairing import PairingError
from kd_det.pairing.detectors import Detector, class_tensors

SHOWN = 6


def check_teacher(path: str, teacher: Detector, classes: Sequence[str]) -> list[str]:
    """Compare the teacher's classes with those of the data; returns a sentence on them.

    ``teacher`` has as many classes as the data. Of a URL nothing is known before its download.

    Raises:
        PairingError: If the teacher was trained on another number of classes, or on the same in
            another order; names both.
        FileNotFoundError: If there is no such file.
        kd_det.algorithms.CheckpointError: If it cannot be read.
    """
    if "://" in path:
        return [
            "the teacher's checkpoint is downloaded, and its classes checked, when training begins"
        ]
    state, meta = read_weights(path, "teacher")
    names = class_names(meta)
    if found := _other_classes(state, teacher):
        key, rows, expected = found
        more = expected - len(classes)
        count = len(names) if names else rows - more
        known = bool(names) or key.endswith("fc_cls.weight")
        trained = f"{count} classes{_listed(names or ())}"
        if not known:  # a head with several outputs for each class
            trained = f"another number of classes ({key} has {rows} rows instead of {expected})"
        raise PairingError(
            f"the teacher's checkpoint {path} was trained on {trained}, and the data has "
            f"{len(classes)}{_listed(classes)}; train the teacher on this data first "
            "(tools/train.py with its config), or give the data that it was trained on"
        )
    if not names:
        return [
            f"{path} does not name its classes, which must be those of the data, in their order"
        ]
    if moved := find_moved(names, classes):
        raise PairingError(
            f"{path}: the teacher's classes are in another order than the data's, so it would "
            f"teach wrong labels: {', '.join(moved[:SHOWN])}; the data has {list(classes)} and the "
            f"teacher {list(names)}; give the data the teacher's order, in the categories of COCO "
            "files (whose order mmdet takes for the labels) and in metainfo.classes"
        )
    if list(names) == list(classes):
        return [f"{path} was trained on the same classes in the same order"]
    return [
        f"{path} names its classes otherwise{_listed(names)}; they must mean the same in the same "
        "order"
    ]


def _other_classes(state: Mapping[str, Any], teacher: Detector) -> tuple[str, int, int] | None:
    """The first tensor with as many rows as classes ask for, if the checkpoint has others.

    Its name, rows found and rows expected. A checkpoint of another architecture lacks the key;
    loading it says so.
    """
    own = teacher.model.state_dict()
    lengths = {key: len(value) for key, value in own.items() if value.dim()}
    differing = [key for key in lengths if key in state and len(state[key]) != lengths[key]]
    if not differing:
        return None
    by_classes = class_tensors(teacher)
    for key in differing:
        if key in by_classes:
            return key, len(state[key]), lengths[key]
    return None


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f" ({', '.join(names[:SHOWN])}{more})" if names else ""
