"""Puts a config together: two detectors, a method, data, a schedule."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DefaultScope

from kd_det.config_options import merge_options
from kd_det.errors import InvalidInputError
from kd_det.pairing import methods, report, text
from kd_det.pairing.data import Data, read_data
from kd_det.pairing.detectors import Detector, PairingError, read_detector, short_name
from kd_det.pairing.distiller import Fitting
from kd_det.pairing.schedule import set_schedule
from kd_det.pairing.teacher_classes import check_teacher

INSTEAD = (
    "For one-stage detectors derive from configs/retinanet_r101_r50_review.py; docs/mixing.md says "
    "how to build other pairs"
)


@dataclass(frozen=True)
class Pairing:
    """A config for two detectors, and how it came about.

    Args:
        cfg: The whole config, for a Runner.
        method: Name of the method.
        student: What was found of the student.
        teacher: What was found of the teacher.
        decisions: What was decided, in sentences.
    """

    cfg: Config
    method: str
    student: Detector
    teacher: Detector
    decisions: list[str]

    def describe(self) -> str:
        """A table of both sides, and what was decided."""
        found = report.table(self.teacher, self.student, self.cfg.model.get("teacher_ckpt"))
        lines = [found, "", f"Decided, for the method {self.method}:"]
        return "\n".join([*lines, *(f"  - {decision}" for decision in self.decisions)])

    def write(self, path: Path) -> None:
        """Write the config as a file that derives from the method's and says what differs."""
        title = f"{short_name(self.teacher.name)} teaches {short_name(self.student.name)}"
        comments = [f"{title} by the method {self.method}. Made by tools/distill.py:"]
        comments += [f"- {decision}" for decision in self.decisions]
        text.write_config(path, methods.bases(self.method), self.cfg.to_dict(), comments)

    def check(self) -> None:
        """Build both detectors and run one blank image through all losses.

        Raises:
            kd_det.algorithms.WiringError: If something does not fit.
            kd_det.algorithms.CheckpointError: If the teacher's checkpoint does not fit.
        """
        from mmdet.registry import MODELS

        with DefaultScope.overwrite_default_scope("mmdet"):
            # mmdet writes into the config that it builds.
            MODELS.build(copy.deepcopy(self.cfg.model))


def pair(
    student: str,
    teacher: str,
    method: str = methods.DEFAULT,
    teacher_ckpt: str | None = None,
    data: str | None = None,
    work_dir: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    cfg_options: Mapping[str, Any] | None = None,
) -> Pairing:
    """Make a config with which ``teacher`` teaches ``student``.

    Both are built without weights, so that shapes are those that they have and nothing is guessed
    from names. Classes are those of the data, on both sides.

    Args:
        student: Config of a two-stage detector: a file, or a package's (``mmdet::...``).
        teacher: Likewise. Weights that its config names are not downloaded.
        method: One of :data:`kd_det.pairing.methods.METHODS`.
        teacher_ckpt: File or URL of the teacher's weights.
        data: A folder in COCO format, a config of mmdet with data loaders, or None for the
            student's own.
        work_dir: Where checkpoints and logs go.
        epochs: Length; the schedule is scaled to it. None keeps the student's.
        batch_size: Images of one process; None keeps the student's.
        cfg_options: Further entries, ``{"model.distiller...": value}``, which win.

    Raises:
        PairingError: If the two cannot be paired; names both and says what to do.
        kd_det.pairing.coco_folder.DataError: If the data is not found or not what is needed.
        kd_det.algorithms.CheckpointError: If the checkpoint cannot be read.
        ValueError: For an unknown method, or a number below 1.
    """
    bases = methods.bases(method)
    cfg = text.inherited(bases)
    work_dir = work_dir or str(
        Path("work_dirs") / f"{short_name(teacher)}_{short_name(student)}_{method}"
    )
    found = read_data(data, text.read_config(student), cfg, work_dir)
    ours, theirs = _read_pair(student, teacher, len(found.classes))
    decisions = list(found.decisions)
    decisions += _classes(ours, theirs, found, teacher_ckpt)
    cfg["model"].update(
        architecture=ours.model_cfg, teacher=theirs.model_cfg, teacher_ckpt=teacher_ckpt
    )
    decisions += _same_padding(ours, theirs)
    decisions += Fitting(cfg["model"], ours, theirs).decisions
    cfg.update(found.settings)
    if batch_size is not None:
        if batch_size < 1:
            raise InvalidInputError(f"expected a batch size >= 1, found {batch_size}")
        cfg["train_dataloader"]["batch_size"] = batch_size
    decisions += set_schedule(cfg, ours.cfg, found, epochs)
    decisions += _set_runtime(cfg, ours, theirs)
    cfg["work_dir"] = work_dir
    result = Config(cfg)
    if cfg_options:
        merge_options(result, cfg_options)
        decisions.append(f"changed by cfg_options, whatever stands above: {', '.join(cfg_options)}")
    return Pairing(result, method, ours, theirs, decisions)


def distill_config(
    student: str, teacher: str, method: str = methods.DEFAULT, **options: Any
) -> Config:
    """The config with which ``teacher`` teaches ``student``, for a Runner.

    .. code-block:: python

        cfg = kd_det.distill_config(
            "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py",
            "mmdet::faster_rcnn/faster-rcnn_r101_fpn_2x_coco.py",
            teacher_ckpt="teacher.pth",
            data="data/fruit",
        )
        Runner.from_cfg(cfg).train()

    Arguments and errors are those of :func:`pair`, which also says what it found.
    """
    return pair(student, teacher, method, **options).cfg


def _read_pair(student: str, teacher: str, num_classes: int) -> tuple[Detector, Detector]:
    try:
        return (
            read_detector(student, "student", num_classes),
            read_detector(teacher, "teacher", num_classes),
        )
    except TypeError as error:
        raise PairingError(f"{teacher} cannot teach {student}: {error}. {INSTEAD}") from error


def _classes(ours: Detector, theirs: Detector, data: Data, teacher_ckpt: str | None) -> list[str]:
    decisions = [
        f"{side.who}: {len(data.classes)} classes, as the data has, instead of the "
        f"{side.own_classes} of its config"
        for side in (ours, theirs)
        if side.own_classes != len(data.classes)
    ]
    if teacher_ckpt is not None:
        decisions += check_teacher(teacher_ckpt, theirs, data.classes)
    return decisions


def _same_padding(ours: Detector, theirs: Detector) -> list[str]:
    """Let images be padded so that both get maps of the same size."""
    divisors = [
        (side.model_cfg.get("data_preprocessor") or {}).get("pad_size_divisor", 1)
        for side in (ours, theirs)
    ]
    common = math.lcm(*divisors)
    if common == divisors[0] == divisors[1]:
        return []
    for side in (ours, theirs):
        side.model_cfg["data_preprocessor"]["pad_size_divisor"] = common
    return [f"images are padded to multiples of {common}, of the student's {divisors[0]} and the "
            f"teacher's {divisors[1]}"]  # fmt: skip


def _set_runtime(cfg: dict[str, Any], ours: Detector, theirs: Detector) -> list[str]:
    """Hooks, imports and what else a run needs beside model, data and schedule."""
    cfg["default_hooks"]["teacher_accuracy"] = dict(type="kd_det.TeacherAccuracyHook")
    if "CocoMetric" not in str(cfg.get("val_evaluator")):
        cfg["default_hooks"]["checkpoint"]["save_best"] = "auto"
    if ours.cfg.get("find_unused_parameters"):
        cfg["find_unused_parameters"] = True
    imports = [
        name
        for side in (ours, theirs)
        for name in (side.cfg.get("custom_imports") or {}).get("imports", [])
    ]
    if imports:
        cfg["custom_imports"] = dict(
            imports=list(dict.fromkeys(imports)), allow_failed_imports=False
        )
    return ["the teacher is evaluated before training; nothing is asked of its accuracy "
            "(default_hooks.teacher_accuracy.floor)"]  # fmt: skip
