"""Compare the classes of the teacher's checkpoint with those of the data."""

from __future__ import annotations

from collections.abc import Sequence

from kd_det.algorithms.checkpoint import class_names, read_weights
from kd_det.datasets.class_order import find_moved
from kd_det.pairing import PairingError
from kd_det.pairing.detectors import Detector

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
    key = f"{teacher.box_heads[0]}.fc_cls.weight"
    expected = teacher.model.state_dict().get(key)
    # A checkpoint of another architecture lacks the key; loading it says so.
    if expected is not None and key in state and len(state[key]) != len(expected):
        more = len(expected) - len(classes)
        count = len(names) if names else len(state[key]) - more
        raise PairingError(
            f"the teacher's checkpoint {path} was trained on {count} classes"
            f"{_listed(names or ())}, and the data has {len(classes)}{_listed(classes)}; train "
            "the teacher on this data first (tools/train.py with its config), or give the data "
            "that it was trained on"
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


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f" ({', '.join(names[:SHOWN])}{more})" if names else ""
