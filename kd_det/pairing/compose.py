"""Put a config together: two detectors, a method, data, a schedule."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from kd_det import config_files
from kd_det.config_options import merge_options
from kd_det.datasets.prepared import PreparedData
from kd_det.errors import MissingPackageError, UnsupportedTypeError
from kd_det.pairing import PairingError, methods, offers, report, text
from kd_det.pairing.alone import add_imports, make_alone
from kd_det.pairing.data import Data, drop_semantic_head, read_data
from kd_det.pairing.detectors import (
    Detector,
    detector_config,
    read_detector,
    short_name,
)
from kd_det.pairing.distiller import fit_distiller
from kd_det.pairing.padding import unify_padding
from kd_det.pairing.teacher_classes import check_teacher
from kd_det.registry import as_list, type_name

INSTEAD = "docs/mixing.md says how to build other pairs"

# Hooks that reach into the detector.
INTO_MODEL = ("YOLOXModeSwitchHook", "SetEpochInfoHook")


@dataclass(frozen=True)
class Pairing:
    """A config for two detectors, and how it came about.

    Args:
        cfg: The whole config, for a Runner.
        alone: That of the same training without the teacher, to compare with.
        method: Name of the method.
        base: The method's file.
        student: What was found of the student.
        teacher: What was found of the teacher.
        decisions: What was decided, in sentences.
    """

    cfg: Config
    alone: Config
    method: str
    base: Path
    student: Detector
    teacher: Detector
    decisions: list[str]

    def describe(self) -> str:
        """A table of both sides, and what was decided."""
        found = report.make_table(self.teacher, self.student, self.cfg.model.get("teacher_ckpt"))
        lines = [found, "", f"Decided, for the method {self.method}:"]
        return "\n".join([*lines, *(f"  - {decision}" for decision in self.decisions)])

    def write(self, path: Path) -> None:
        """Write the config as a file that derives from the method's, and ``alone.py`` beside it."""
        title = f"{short_name(self.teacher.name)} teaches {short_name(self.student.name)}"
        comments = [f"{title} by the method {self.method}. Made by kd-det distill:"]
        comments += [f"- {decision}" for decision in self.decisions]
        text.write_config(path, [self.base], self.cfg.to_dict(), comments)
        comments = [f"The training of {path.name} without its teacher, to compare with."]
        text.write_config(self.alone_path(path), [], self.alone.to_dict(), comments)

    @staticmethod
    def alone_path(path: Path) -> Path:
        """The path of the student's training without the teacher."""
        return path.with_name("alone.py")

    def check(self) -> None:
        """Build all that a training builds, without training; see :mod:`kd_det.pairing.dry_run`.

        Raises:
            kd_det.algorithms.WiringError: If something does not fit.
            kd_det.algorithms.CheckpointError: If the teacher's checkpoint does not fit.
        """
        from kd_det.pairing.dry_run import dry_run

        dry_run(self.cfg)


def default_work_dir(student: str, teacher: str, method: str) -> str:
    """Where checkpoints and logs of a pair go."""
    return f"work_dirs/{short_name(teacher)}_{short_name(student)}_{method}"


def read_sides(student: str, teacher: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configs of both sides.

    Raises:
        PairingError: If one is of a kind that is not supported; names both.
        FileNotFoundError: If there is no such config.
    """
    cfgs = text.read_config(student), text.read_config(teacher)
    with _name_both(student, teacher):
        detector_config(cfgs[0], student, "student")
        detector_config(cfgs[1], teacher, "teacher")
    return cfgs


def pair(
    student: str,
    teacher: str,
    method: str = methods.DEFAULT,
    teacher_ckpt: str | None = None,
    data: str | PreparedData | None = None,
    work_dir: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    cfg_options: Mapping[str, Any] | None = None,
) -> Pairing:
    """Make a config with which ``teacher`` teaches ``student``.

    It is the student's whole config with the teacher added. Both are built without weights: shapes
    are read from the models, never guessed from names. Both get the classes of the data.

    Args:
        student: Config of a detector: a file, or a package's (``mmdet::...``).
        teacher: Likewise. Weights that its config names are not downloaded.
        method: One of :data:`kd_det.pairing.methods.METHODS`.
        teacher_ckpt: File or URL of the teacher's weights.
        data: A folder of labelled images, by its path or prepared already, a config of mmdet with
            data loaders, or None for the student's own.
        work_dir: Where checkpoints and logs go.
        epochs: Length; the schedule is scaled to it. None keeps the student's.
        batch_size: Images of one process; None keeps the student's.
        cfg_options: Further entries, ``{"model.distiller...": value}``, which win.

    Raises:
        PairingError: If the two cannot be paired, or not by this method; names both and says what
            to do.
        kd_det.datasets.coco.DataError: If the data is missing or not valid.
        kd_det.algorithms.CheckpointError: If the checkpoint cannot be read.
        ValueError: For an unknown method, or a number below 1.
    """
    methods.require_known(method)
    coco = text.read_bases([methods.find_coco()])
    work_dir = work_dir or default_work_dir(student, teacher, method)
    cfgs = read_sides(student, teacher)  # before data are read
    found = read_data(data, cfgs[0], coco, work_dir)
    dropped = drop_semantic_head(cfgs[0], found)
    with _name_both(student, teacher):
        sides = (
            read_detector(student, "student", len(found.classes), cfgs[0]),
            read_detector(teacher, "teacher", len(found.classes), cfgs[1]),
        )
    form = offers.choose_form(method, *sides)
    recipe = text.read_bases([form.path])
    decisions = [*found.decisions, *dropped, *_compare_classes(*sides, found, teacher_ckpt)]
    decisions += unify_padding(*sides)
    alone, kept = make_alone(sides[0], found, coco, data is None, epochs, batch_size)
    cfg, fitting = _add_teacher(alone, recipe, *sides, teacher_ckpt)
    decisions += [*fitting, *kept]
    decisions.append(
        "the teacher is evaluated before training; nothing is asked of its accuracy "
        "(default_hooks.teacher_accuracy.floor)"
    )
    cfg["work_dir"], alone["work_dir"] = work_dir, f"{work_dir.rstrip('/')}_alone"
    result, plain = Config(cfg), Config(alone)
    if cfg_options:
        merge_options(result, cfg_options)
        merge_options(plain, _pick_student_options(cfg_options))
        decisions.append(f"changed by cfg_options, whatever stands above: {', '.join(cfg_options)}")
    for each in (result, plain):
        config_files.drop_hooks_of_none(each)
    return Pairing(result, plain, method, form.path, *sides, decisions)


def read_pair(student: str, teacher: str) -> tuple[Detector, Detector]:
    """Both detectors without data, with the classes of the student's config, as data would have it.

    Raises:
        PairingError: If one cannot be paired; names both.
    """
    with _name_both(student, teacher):
        learner = read_detector(student, "student")
        return learner, read_detector(teacher, "teacher", learner.num_classes)


def _add_teacher(
    alone: dict[str, Any],
    method: dict[str, Any],
    student: Detector,
    teacher: Detector,
    teacher_ckpt: str | None,
) -> tuple[dict[str, Any], list[str]]:
    """Add the teacher and all that it needs to the training of ``alone``, and nothing else."""
    cfg = {**method, **copy.deepcopy(alone), "model": method["model"]}
    cfg["model"].update(
        architecture=copy.deepcopy(student.model_cfg),
        teacher=teacher.model_cfg,
        teacher_ckpt=teacher_ckpt,
        speed=dict(auto=True),
    )
    decisions = fit_distiller(cfg["model"], student, teacher)
    own = [_of_student(hook) for hook in cfg["custom_hooks"]]
    fits_neck = "neck" in (cfg["model"].get("init_student_from_teacher") or ())
    cfg["custom_hooks"] = own + [
        hook
        for hook in method.get("custom_hooks") or ()
        if fits_neck or type_name(hook) != "NeckFitHook"
    ]
    cfg["default_hooks"]["teacher_accuracy"] = dict(type="kd_det.TeacherAccuracyHook")
    optimizer = cfg["optim_wrapper"]
    if optimizer.get("constructor") or optimizer.get("paramwise_cfg"):
        if optimizer.get("constructor"):
            optimizer["student_constructor"] = optimizer["constructor"]
        optimizer["constructor"] = "kd_det.DistillOptimWrapperConstructor"
    # Names of the student's modules, which MMEngine looks for in the model.
    for key in ("activation_checkpointing", "efficient_conv_bn_eval"):
        if cfg.get(key):
            cfg[key] = [f"architecture.{name}" for name in as_list(cfg[key])]
    add_imports(cfg, as_list((teacher.cfg.get("custom_imports") or {}).get("imports")))
    return cfg, decisions


def _of_student(hook: dict[str, Any]) -> dict[str, Any]:
    """A hook of the student's config, which reaches the student where it reaches into the model."""
    if type_name(hook) not in INTO_MODEL:
        return hook
    rest = {key: value for key, value in hook.items() if key != "priority"}
    priority = {key: value for key, value in hook.items() if key == "priority"}
    return dict(type="kd_det.StudentHook", hook=rest, **priority)


def _pick_student_options(cfg_options: Mapping[str, Any]) -> dict[str, Any]:
    """The further entries of the student's training, under their names where it is alone."""
    kept = {}
    for key, value in cfg_options.items():
        student = key.removeprefix("model.architecture.")
        if student != key:
            kept[f"model.{student}"] = value
        elif not key.startswith(("model.", "custom_hooks", "default_hooks.teacher_accuracy")):
            kept[key] = value
    return {key: value for key, value in kept.items() if key not in ("model", "work_dir")}


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


@contextmanager
def _name_both(student: str, teacher: str) -> Iterator[None]:
    """Name both sides where one cannot be paired."""
    try:
        yield
    except UnsupportedTypeError as error:
        raise PairingError(f"{teacher} cannot teach {student}: {error}. {INSTEAD}") from error
    except (PairingError, MissingPackageError) as error:  # which say what would fit
        raise type(error)(f"{teacher} cannot teach {student}: {error}") from error


def _compare_classes(
    student: Detector, teacher: Detector, data: Data, teacher_ckpt: str | None
) -> list[str]:
    decisions = [
        f"{side.who}: {side.num_classes} classes, as the data has, instead of the "
        f"{side.own_classes} of its config"
        for side in (student, teacher)
        if side.own_classes != side.num_classes
    ]
    if teacher_ckpt is not None:
        decisions += check_teacher(teacher_ckpt, teacher, data.classes)
    return decisions
