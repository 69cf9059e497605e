"""Teacher, class centers, steps that were left out, and the learning rate of a training."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kd_det.centers import ClassCenters, ClassCentersError
from kd_det.hooks.class_center_hook import FILE_NAME as CENTERS_FILE
from kd_det.hooks.teacher_accuracy_hook import FILE_NAME as METRICS_FILE
from kd_det.registry import type_name
from kd_det.report.doctor.finding import Finding
from kd_det.report.scalars import read_scalars

# A learning rate for a batch so many times as large or small is wrong.
OTHER_BATCH = 2
# The share of the gap to the teacher that tells a gain from chance.
GAP_CLOSED = 0.1
SHOWN = 5

Scalars = Mapping[str, Mapping[int, float]]


def find_in_teacher(folder: Path, scalars: Scalars) -> Iterator[Finding]:
    """Compare the teacher's accuracy with the student's, and with that of the student alone.

    The student alone is what ``kd-det distill`` trains in the folder with ``_alone`` added, or
    beside ``distilled`` in ``alone``.
    """
    metrics = _teacher_metrics(folder, scalars)
    if metrics is None:
        if any(name.startswith("distill.") for name in scalars):
            yield Finding(
                "teacher",
                False,
                "The teacher's accuracy is unknown: kd_det.TeacherAccuracyHook evaluates it before "
                "the training.",
            )
        return
    metric = next((name for name in metrics if scalars.get(name)), next(iter(metrics), None))
    if metric is None or metrics[metric] <= 0:
        found = "nothing" if metric is None else f"{metric} {metrics[metric]:.4g}"
        yield Finding(
            "teacher",
            True,
            f"The teacher finds {found} on the validation data, so there is nothing to learn from "
            "it: its weights, its classes' order or its preprocessing are wrong.",
        )
        return
    teacher = metrics[metric]
    student = _best(scalars, metric)
    alone = _best(read_scalars(_alone(folder)), metric)
    text = f"The teacher has {metric} {teacher:.4g}"
    if student is not None:
        text += f", the student {student:.4g} at best"
    if alone is not None:
        gain = "" if student is None else f" ({student - alone:+.4g} by distillation)"
        text += f", {alone:.4g} without the teacher{gain}"
    compared = [value for value in (alone, student) if value is not None][:1]
    problem = bool(compared) and teacher <= compared[0]
    if problem:
        whom = "the student alone" if alone is not None else "its student"
        text += f": it is no better than {whom}, so take a better one, or train it for longer"
    yield Finding("teacher", problem, f"{text}.")


def is_helped(folder: Path, scalars: Scalars) -> bool:
    """Whether the student is known to close a tenth of its gap to the teacher, or more.

    The gap is that of the student alone. Less may be chance.
    """
    for metric, teacher in (_teacher_metrics(folder, scalars) or {}).items():
        student, alone = _best(scalars, metric), _best(read_scalars(_alone(folder)), metric)
        if student is not None and alone is not None:
            return student - alone > max(0.0, GAP_CLOSED * (teacher - alone))
    return False


def _alone(folder: Path) -> Path:
    """Where ``kd-det distill`` trains the student alone."""
    folder = folder.resolve()  # '.' has no name
    beside = folder.with_name(f"{folder.name}_alone")
    if folder.name == "distilled" and not beside.is_dir():  # one of several trainings
        return folder.with_name("alone")
    return beside


def _teacher_metrics(folder: Path, scalars: Scalars) -> dict[str, float] | None:
    """None if the teacher was not evaluated; empty if it detects nothing."""
    path = folder / METRICS_FILE
    if path.is_file():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))["metrics"]
            return {str(name): float(value) for name, value in found.items()}
        except (ValueError, KeyError, TypeError, AttributeError):  # cut off
            pass
    start = "teacher/"
    logged = {name[len(start) :]: v for name, v in scalars.items() if name.startswith(start)}
    return {name: next(iter(points.values())) for name, points in logged.items()} or None


def _best(scalars: Scalars, metric: str) -> float | None:
    values = [value for value in scalars.get(metric, {}).values() if math.isfinite(value)]
    return max(values) if values else None


def find_in_steps(folder: Path, cfg: Any, scalars: Scalars) -> Iterator[Finding]:
    """Steps whose loss was NaN or infinite."""
    steps: dict[int, Path] = {}
    for path in sorted(folder.glob("nonfinite_iter_*_rank_*.safetensors")):
        steps.setdefault(int(path.stem.split("_")[2]), path)
    total = scalars.get("loss", {})
    if steps:
        hooks = [*(cfg.get("default_hooks") or {}).values(), *(cfg.get("custom_hooks") or ())]
        finite = [hook for hook in hooks if hook and type_name(hook) == "FiniteLossHook"]
        skips = any(hook.get("policy") == "skip" for hook in finite)
        first = min(steps)
        shown = ", ".join(map(str, sorted(steps)[:SHOWN])) + (", ..." if len(steps) > SHOWN else "")
        what = "were left out" if skips else "stopped the training"
        yield Finding(
            "nonfinite_steps",
            True,
            f"{len(steps)} of {max(*total, *steps, first)} steps had a NaN or infinite loss and "
            f"{what} (iterations {shown}). {_why(steps[first])} Lower the learning rate, clip "
            "gradients, or look at the batch that was kept.",
        )
        return
    broken = [step for step, value in total.items() if not math.isfinite(value)]
    if broken:
        yield Finding(
            "nonfinite_steps",
            True,
            f"The loss is NaN or infinite in {len(broken)} of {len(total)} logged values, first at "
            f"iteration {broken[0]}. Lower the learning rate or clip gradients; "
            "kd_det.FiniteLossHook names the loss and keeps the weights finite.",
        )


def _why(path: Path) -> str:
    """What FiniteLossHook wrote of a step, up to its figures."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("why", "")
    except (SafetensorError, OSError):
        text = ""
    return f"{text.partition(';')[0]}." if text else f"The first is kept in {path}."


def find_in_centers(folder: Path) -> Iterator[Finding]:
    """Classes without a center, in the files of the pre-pass."""
    for path in sorted(folder.glob(f"{Path(CENTERS_FILE).stem}*.safetensors")):
        try:
            centers = ClassCenters.load(path)
            names = json.loads(centers.metadata.get("class_names", "[]"))
        except (ClassCentersError, ValueError) as error:
            yield Finding("centers", True, f"The class centers cannot be read: {error}.")
            continue
        # Annotated boxes alone (rois='gt') have no background.
        names += [str(i) for i in range(len(names), centers.num_classes)]
        counted = zip(names, centers.counts.tolist())
        empty = [str(name) for name, count in counted if count == 0 and name != "background"]
        if empty:
            shown = ", ".join(empty[:SHOWN]) + (", ..." if len(empty) > SHOWN else "")
            yield Finding(
                "centers",
                True,
                f"{len(empty)} of {centers.num_classes} classes have no class center in "
                f"{path.name} ({shown}) and take no part in the losses that use "
                "them: the pre-pass saw no object of theirs. Raise max_images of ClassCenterHook, "
                "or check the annotations.",
            )


def find_in_learning_rate(folder: Path, cfg: Any) -> Iterator[Finding]:
    """Compare the batch with that which the learning rate is for."""
    rate = ((cfg.get("optim_wrapper") or {}).get("optimizer") or {}).get("lr")
    images = (cfg.get("train_dataloader") or {}).get("batch_size")
    scaling = cfg.get("auto_scale_lr") or {}
    base = scaling.get("base_batch_size")
    if not (rate and images):
        return
    processes = _processes(folder)
    batch = images * processes
    of_run = f"a batch of {batch}" + (f" ({processes} processes)" if processes > 1 else "")
    # MMEngine's scaling knows nothing of it, nor does the config's rate.
    accumulated = cfg.optim_wrapper.get("accumulative_counts", 1)
    if accumulated > 1:
        of_run += f", of which {accumulated} make a step"
    if not base:
        yield Finding(
            "learning_rate",
            False,
            f"The learning rate is {rate:g} for {of_run}; the config does not say which batch it "
            "is for (auto_scale_lr.base_batch_size).",
        )
    elif scaling.get("enable"):
        yield Finding(
            "learning_rate",
            False,
            f"The learning rate is {rate * batch / base:.4g} for {of_run}: {rate:g} for {base}, "
            "scaled.",
        )
    else:
        ratio = batch * accumulated / base
        problem = not 1 / OTHER_BATCH < ratio < OTHER_BATCH
        text = f"The learning rate is {rate:g} for {of_run}; the config means it for {base}"
        if problem:
            text += f", which would be {rate * ratio:.4g} here (--auto-scale-lr scales it)"
        yield Finding("learning_rate", problem, f"{text}.")


def _processes(folder: Path) -> int:
    """How many processes trained, as MMEngine's log of the last start says."""
    for path in sorted(folder.glob("*/*.log"), reverse=True):
        with path.open(encoding="utf-8", errors="replace") as file:
            for line, _ in zip(file, range(200)):
                if found := re.search(r"GPU number: (\d+)", line):
                    return int(found[1])
    return 1
