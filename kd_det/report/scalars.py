"""The scalars that a training logged, over all its interruptions."""

from __future__ import annotations

import json
from pathlib import Path

NO_SCALARS = ("step", "epoch", "iter")


def read_scalars(folder: Path) -> dict[str, dict[int, float]]:
    """Read all scalars of a work directory, by name and step, of MMEngine's local backend.

    Every start of a training has its own folder. Steps after the checkpoint from which a later
    start resumed were computed anew, and are taken from the later start.
    """
    found: dict[str, dict[int, float]] = {}
    for file in sorted(folder.glob("*/vis_data/scalars.json")):
        for name, points in _read(file).items():
            begin = min(points)
            kept = {step: value for step, value in found.get(name, {}).items() if step < begin}
            found[name] = {**kept, **points}
    return {name: dict(sorted(points.items())) for name, points in found.items()}


def _read(file: Path) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:  # the end of a process that was killed
            continue
        for name, value in entry.items():
            if name not in NO_SCALARS and isinstance(value, (int, float)) and "step" in entry:
                found.setdefault(name, {})[entry["step"]] = value
    return found


def task_loss(scalars: dict[str, dict[int, float]]) -> dict[int, float]:
    """Sum the training losses without those of distillation, by step."""
    own = [
        points
        for name, points in scalars.items()
        if name.startswith("student.") and "loss" in name.removeprefix("student.")
    ]
    if not own:
        return scalars.get("loss", {})
    steps = set.intersection(*(set(points) for points in own))
    return {step: sum(points[step] for points in own) for step in sorted(steps)}
