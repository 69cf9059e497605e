"""The teacher's own training, for data on which nobody trained one yet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from kd_det import config_files
from kd_det.datasets.prepared import PreparedData
from kd_det.errors import UserError, add_note
from kd_det.pairing import methods, text
from kd_det.pairing.alone import make_alone
from kd_det.pairing.data import drop_semantic_head, read_data
from kd_det.pairing.detectors import Detector, read_detector
from kd_det.pairing.schedule import list_hooks
from kd_det.registry import as_list, type_name

# The folder of the teacher's weights, in its work directory.
NAME = "model"


@dataclass(frozen=True)
class TeacherTraining:
    """The config of a teacher's training, and how it came about.

    Args:
        cfg: The whole config, for a Runner.
        detector: What was found of it.
        decisions: What was decided, in sentences.
    """

    cfg: Config
    detector: Detector
    decisions: list[str]

    @property
    def start(self) -> str | None:
        """File or URL of the whole detector's weights from which it starts."""
        return self.detector.cfg.get("load_from")

    @property
    def checkpoint(self) -> Path:
        """The weights that teach: the best of its evaluations, else the last ones."""
        best = self.cfg.default_hooks.get("checkpoint") or {}
        folder = f"{NAME}_best" if type_name(best) == "CheckpointHook" else NAME
        return Path(self.cfg.work_dir) / folder / "model.pth"

    def describe(self) -> str:
        """What was decided, in lines."""
        return "\n".join(
            ["Decided, for the teacher's own training:", *(f"  - {d}" for d in self.decisions)]
        )

    def write(self, path: Path) -> None:
        """Write the config as a file."""
        comments = ["The teacher's own training. Made by kd-det distill:"]
        comments += [f"- {decision}" for decision in self.decisions]
        text.write_config(path, [], self.cfg.to_dict(), comments)


def teacher_training(
    teacher: str,
    student: str,
    data: str | PreparedData | None,
    work_dir: str,
    start: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
) -> TeacherTraining:
    """Make the config of a teacher's training on the data of a pair.

    It is the teacher's whole config: its pipelines, optimizer, schedule and hooks, with the classes
    of the data. Nothing is downloaded.

    Args:
        teacher: Config of a detector: a file, or a package's (``mmdet::...``).
        student: The student's, which names the data if ``data`` is None.
        data: As for :func:`kd_det.pairing.compose.pair`.
        work_dir: Where checkpoints and logs go.
        start: File or URL of a whole detector's weights, from which it starts, as those of COCO:
            tensors of another shape, as those of heads for other classes, are left out. None for
            what its config says.
        epochs: Length; None keeps the config's.
        batch_size: Images of one process; None keeps the config's.

    Raises:
        PairingError: If it cannot be trained so; says why.
        kd_det.datasets.coco.DataError: If the data is missing or not valid.
        kd_det.algorithms.CheckpointError: If ``start`` cannot be read.
    """
    cfg = text.read_config(teacher)
    if start is not None:
        cfg["load_from"] = start
    coco = text.read_bases([methods.find_coco()])
    with _about_the_teacher(teacher):
        found = read_data(student if data is None else data, cfg, coco, Path(work_dir).parent)
        dropped = drop_semantic_head(cfg, found)
        detector = read_detector(teacher, "teacher", len(found.classes), cfg, trained=True)
        parts, decisions = make_alone(detector, found, coco, data is None, epochs, batch_size)
        decisions = [*dropped, *decisions]
    _keep_weights(parts)
    parts["work_dir"] = work_dir
    result = Config(parts)
    config_files.drop_hooks_of_none(result)
    training = TeacherTraining(result, detector, decisions)
    decisions.append(f"the weights that teach are {training.checkpoint}")
    return training


def _keep_weights(cfg: dict[str, Any]) -> None:
    """Let the best weights lie where they are expected, whatever epoch they are of."""
    for hook in list_hooks(cfg):
        if type_name(hook) == "StudentExportHook":
            hook.update(name=NAME, best=True, last=True)
    checkpoint = cfg["default_hooks"].get("checkpoint") or {}
    if isinstance(checkpoint.get("save_best"), (list, tuple)):
        checkpoint["save_best"] = as_list(checkpoint["save_best"])[0]


@contextmanager
def _about_the_teacher(name: str) -> Iterator[None]:
    """Say of an error that it is not about the student."""
    try:
        yield
    except UserError as error:
        add_note(error, f"this is about the training of the teacher, {name}")
        raise
