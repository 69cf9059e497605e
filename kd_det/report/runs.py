"""Work directories of trainings, and the role of each in a distillation."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mmengine.config import Config

from kd_det import config_files
from kd_det.config_options import merge_options
from kd_det.report.scalars import read_scalars

ROLES = ("teacher", "plain", "distilled")


@dataclass(frozen=True, eq=False)
class Run:
    """A trained model.

    Args:
        name: Its name in a report.
        role: One of :data:`ROLES`.
        folder: Its work directory; for a teacher that was trained elsewhere, that of its student.
        cfg: The config that ``folder`` was trained with.
        checkpoint: File or URL of the weights.
        trained_here: Whether ``folder`` is this model's own.
    """

    name: str
    role: str
    folder: Path
    cfg: Config
    checkpoint: str
    trained_here: bool = True

    @property
    def model(self) -> Any:
        """The model's own config, also of a distillation."""
        part = "student" if self.trained_here else "teacher"
        return (
            config_files.model_config(self.cfg, part)
            if config_files.is_distillation(self.cfg)
            else self.cfg.model
        )

    @cached_property
    def scalars(self) -> dict[str, dict[int, float]]:
        """Logged scalars of its training, by name and step."""
        return read_scalars(self.folder) if self.trained_here else {}


def read_runs(folders: Sequence[Path], options: Mapping[str, Any] | None = None) -> list[Run]:
    """Find the trainings in work directories, ordered as :data:`ROLES`.

    A config with teacher and student is that of a distilled run. Of the others, one that a
    distilled run's ``teacher_ckpt`` lies in is the teacher, the rest is plain. A teacher that is
    not among them is taken from the distilled run's config.

    Args:
        folders: Work directories.
        options: Entries to override in all configs, as ``--cfg-options`` does.

    Raises:
        FileNotFoundError: If one has no config or no checkpoint.
    """
    folders = list(dict.fromkeys(Path(folder) for folder in folders))
    configs = {folder: read_dumped_config(folder) for folder in folders}
    for cfg in configs.values():
        merge_options(cfg, options)
    distilled = [folder for folder in folders if config_files.is_distillation(configs[folder])]
    teachers = {configs[folder].model.get("teacher_ckpt") for folder in distilled} - {None}
    runs = []
    for folder, name in zip(folders, _names(folders)):
        role, checkpoint = "plain", str(last_checkpoint(folder))
        taught = sorted(each for each in teachers if _lies_in(each, folder))
        if folder in distilled:
            role = "distilled"
        elif taught:  # shown with the weights that taught, which may not be the last ones
            role = "teacher"
            checkpoint = taught[0] if Path(taught[0]).is_file() else checkpoint
        runs.append(Run(name, role, folder, configs[folder], checkpoint))
    given = [run.folder for run in runs if run.role == "teacher"]
    for folder in distilled:
        checkpoint = configs[folder].model.get("teacher_ckpt")
        if checkpoint in teachers and not any(_lies_in(checkpoint, other) for other in given):
            remedy = "start where the training was started, or name the teacher's run as well"
            config_files.require(checkpoint, "the teacher's checkpoint", remedy)
            name = checkpoint if "teacher" in [run.name for run in runs] else "teacher"
            runs.append(Run(name, "teacher", folder, configs[folder], checkpoint, False))
            teachers.discard(checkpoint)  # several students may have the same
    return sorted(runs, key=lambda run: ROLES.index(run.role))


def read_dumped_config(folder: Path) -> Config:
    """Read the config that the last start of a training wrote into its work directory.

    Raises:
        FileNotFoundError: If there is none.
    """
    dumped = [*sorted(folder.glob("*/vis_data/config.py")), *sorted(folder.glob("*.py"))]
    if not dumped:
        raise FileNotFoundError(
            f"{folder} is no work directory of a training: expected the config that MMEngine "
            "writes, <time>/vis_data/config.py, and found none"
        )
    # Of the last start, or else in the folder itself.
    starts = [path for path in dumped if path.parent != folder]
    return Config.fromfile(starts[-1] if starts else dumped[0])


def last_checkpoint(folder: Path) -> Path:
    """Find the last checkpoint of a work directory, also where the directory was moved.

    Raises:
        FileNotFoundError: If there is none.
    """
    marker = folder / "last_checkpoint"
    if not marker.is_file():
        raise FileNotFoundError(
            f"{folder} has no finished checkpoint: expected a file last_checkpoint that names one"
        )
    named = Path(os.fsdecode(marker.read_bytes()).strip())
    for path in (folder / named.name, named):
        if path.is_file():
            return path
    raise FileNotFoundError(f"the checkpoint that {marker} names does not exist: {named}")


def _lies_in(checkpoint: str, folder: Path) -> bool:
    return "://" not in checkpoint and Path(checkpoint).resolve().is_relative_to(folder.resolve())


def _names(folders: Sequence[Path]) -> list[str]:
    """Name runs by their folders; by the whole path where two names are the same."""
    names = [folder.resolve().name for folder in folders]
    return [str(folder) if names.count(name) > 1 else name for folder, name in zip(folders, names)]
