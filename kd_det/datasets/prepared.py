"""Prepare data for training: recognise, inspect, and convert where needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kd_det.datasets.coco import Annotations, DataError
from kd_det.datasets.faults import REPAIRED
from kd_det.datasets.formats import DetectionSet, read_set
from kd_det.datasets.inspection import SCALE, Inspection, inspect
from kd_det.datasets.writing import write_set


@dataclass(frozen=True)
class PreparedData:
    """A data set whose annotations can be trained on.

    Args:
        found: What was recognised.
        inspection: What it holds, and what is wrong with it.
        annotations: Of each part, with the file that training reads.
    """

    found: DetectionSet
    inspection: Inspection
    annotations: dict[str, Annotations]

    @property
    def root(self) -> Path:
        """The folder."""
        return self.found.root

    @property
    def remarks(self) -> list[str]:
        """Notes, repairs and faults, in sentences."""
        faults = [
            f"{fault.severity}: {fault.sentence}"
            for fault in self.inspection.faults
            if fault.severity != REPAIRED
        ]
        repaired = [f.sentence for f in self.inspection.faults if f.severity == REPAIRED]
        return [*self.found.notes, *repaired, *faults]

    def require_no_errors(self) -> None:
        """Raise ``DataError`` if something keeps a training from starting."""
        errors = self.inspection.errors
        if errors:
            more = f" (and {len(errors) - 1} more kinds of errors)" if len(errors) > 1 else ""
            raise DataError(
                f"{self.root}, {errors[0].sentence}{more}; 'kd-det data {self.root}' lists all"
            )


def prepare(
    root: Path,
    work_dir: Path,
    scale: tuple[int, int] = SCALE,
    tell: Callable[[str], object] = lambda note: None,
    **options: Any,
) -> PreparedData:
    """Recognise, inspect and convert a data set.

    Args:
        root: The folder, or a file in it that describes it; never written.
        work_dir: Where ``data/`` goes: converted annotations, and what was seen of the images.
        scale: Longer and shorter side that a detector's images are resized within.
        tell: Is called with each note as soon as the data were recognised.
        options: Of :func:`kd_det.datasets.formats.read_set`.

    Raises:
        NotADirectoryError: If there is no such folder.
        DataError: If it is in no format that is read, or in several, or a file is not valid.
        OSError: If the work directory cannot be written.
    """
    found = read_set(root, **options)
    for note in found.notes:
        tell(note)
    inspection = inspect(found, scale, work_dir / "data" / "images.json")
    return PreparedData(found, inspection, write_set(found, inspection, work_dir / "data"))
