"""One pair of mmdet's zoo: paired, built, trained for a step and evaluated on an image."""

from __future__ import annotations

import copy
import json
import re
import signal
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from kd_det.errors import UserError
from kd_det.registry import type_name

SIDE = 128
# SSD's last maps need more, and detectors that take their queries from the encoder.
LARGER_SIDE = 640
TOO_SMALL = ("Kernel size", "out of range")
# Options of transforms and preprocessors that are sizes of images, in pixels.
SIZES = (
    "scale", "scales", "img_scale", "crop_size", "size", "pad_size", "border", "random_size_range",
    "ratio_range_size",
)  # fmt: skip
# Of a training: weights of both sides, gradients, AdamW's averages, an EMA.
BYTES_A_PARAMETER = 24
CLASSES = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")


@dataclass
class Outcome:
    """What became of a pair.

    Args:
        student: Name of its config in mmdet, without ending.
        teacher: Likewise.
        outcome: ``passed``, ``built`` (without values, since it is large), ``refused`` (in a
            sentence) or ``failed``.
        family: Of the student; empty for what is no detector of fixed classes in images.
        method: By which it was taught.
        reason: The sentence, or the error.
        seconds: That it took.
    """

    student: str
    teacher: str
    outcome: str = "failed"
    family: str = ""
    method: str = "robust"
    reason: str = ""
    seconds: float = 0.0

    def write(self, folder: Path) -> None:
        path = outcome_file(folder, self.student, self.teacher)
        path.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")


def outcome_file(folder: Path, student: str, teacher: str) -> Path:
    """The file of a pair's outcome."""
    names = [student] if student == teacher else [student, "from", teacher]
    return folder / ("__".join(names).replace("/", "__") + ".json")


def make_data(root: Path) -> None:
    """Make a COCO folder of two images to learn from and one to evaluate on, with masks."""
    from kd_det.datasets import make_digits_coco

    make_digits_coco(root, image_size=SIDE, train_images=2, val_images=1)
    for path in (root / "annotations").glob("*.json"):
        found = json.loads(path.read_text(encoding="utf-8"))
        found["annotations"] = [  # CrowdDet pairs the objects of an image
            dict(each, id=2 * each["id"] + i) for each in found["annotations"] for i in range(2)
        ]
        for each in found["annotations"]:
            x, y, w, h = each["bbox"]
            each["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        path.write_text(json.dumps(found), encoding="utf-8")


def try_pair(student: str, teacher: str, data: Path, limit: int, memory: float) -> Outcome:
    """Try a pair for ``limit`` seconds at most."""
    found = Outcome(student, teacher)
    start = time.monotonic()
    try:
        with _limited(limit):
            _try(found, data, memory)
    except UserError as error:
        found.outcome, found.reason = "refused", str(error)
    except Exception as error:  # whatever it is, the next one is tried
        frame = traceback.extract_tb(error.__traceback__)[-1]
        found.reason = (
            f"{type(error).__name__}: {error} ({Path(frame.filename).name}:{frame.lineno})"
        )
    found.seconds = round(time.monotonic() - start, 1)
    return found


def _try(found: Outcome, data: Path, memory: float) -> None:
    from kd_det.pairing.compose import pair
    from kd_det.pairing.families import find_family
    from kd_det.pairing.text import read_config

    student = _config(found.student)
    found.family = find_family(read_config(student).get("model", {}), student, "student").name
    with tempfile.TemporaryDirectory(prefix="kd_det_zoo_") as folder:
        made = pair(
            student,
            _config(found.teacher),
            found.method,
            data=str(data),
            work_dir=folder,
            epochs=1,
            batch_size=2,
            cfg_options={
                "default_hooks.checkpoint": None,
                "default_hooks.student_export": None,
                "default_hooks.teacher_accuracy": None,
            },
        )
        sides = (made.student, made.teacher)
        number = sum(p.numel() for side in sides for p in side.model.parameters()) / 2
        if number * BYTES_A_PARAMETER > memory * 2**30:
            found.outcome = "built"
            found.reason = f"{number / 1e6:.0f} M parameters: shapes alone were computed"
            return
        try:
            _train(made.cfg, Path(folder), SIDE)
        except RuntimeError as error:
            if not any(text in str(error) for text in TOO_SMALL):
                raise
            _train(made.cfg, Path(folder), LARGER_SIDE)
    found.outcome = "passed"


def _config(name: str) -> str:
    """A config as one names it; a path where its folder's name is none of a package."""
    from mmengine.utils import get_installed_path

    if re.fullmatch(r"[\w/-]+/[^/]+", name):
        return f"mmdet::{name}.py"
    return str(Path(get_installed_path("mmdet"), ".mim", "configs", f"{name}.py"))


def _train(cfg: Any, folder: Path, side: int) -> None:
    from mmengine.config import Config, ConfigDict
    from mmengine.registry import DefaultScope
    from mmengine.runner import Runner
    from mmrazor.registry import MODELS

    from kd_det.pairing.start_weights import drop_downloads

    cfg = copy.deepcopy(cfg.to_dict())
    drop_downloads(cfg["model"]["architecture"])
    with DefaultScope.overwrite_default_scope("mmdet"):
        teacher = MODELS.build(ConfigDict(cfg["model"]["teacher"]))
        teacher.init_weights()
    _damp(teacher)
    torch.save(teacher.state_dict(), folder / "teacher.pth")
    del teacher
    cfg["model"]["teacher_ckpt"] = str(folder / "teacher.pth")
    preprocessor = cfg["model"]["architecture"].get("data_preprocessor") or {}
    datasets = [cfg[f"{part}_dataloader"]["dataset"] for part in ("train", "val", "test")]
    for part in (cfg["custom_hooks"], preprocessor.get("batch_augments"), *datasets):
        _shrink(part, side)
    for part in ("train", "val", "test"):
        loader = cfg[f"{part}_dataloader"]
        loader.update(num_workers=0, persistent_workers=False)
        for key in ("prefetch_factor", "timeout"):
            loader.pop(key, None)
    if type_name(cfg["optim_wrapper"]) == "AmpOptimWrapper":  # as kd-det train does on a CPU
        cfg["optim_wrapper"]["type"] = "kd_det.Bfloat16OptimWrapper"
        for key in ("loss_scale", "dtype"):
            cfg["optim_wrapper"].pop(key, None)
    if cfg["train_cfg"].get("max_iters"):
        cfg["train_cfg"].update(max_iters=1, val_interval=1)
    # MMEngine keeps runners' visualizers and loggers by name.
    name = f"{folder.name}_{side}"
    cfg["visualizer"] = dict(type="DetLocalVisualizer", name=name, vis_backends=[])
    cfg.update(experiment_name=name, log_level="ERROR")
    whole = Config(cfg)
    object.__setattr__(whole, "_format_python_code", False)
    runner = Runner.from_cfg(whole)
    runner.model.init_weights()  # which a training leaves out then
    _damp(runner.model.student)
    runner.train()


@torch.no_grad()
def _damp(model: torch.nn.Module) -> None:
    """Halve the factors of batch norms: a deep backbone of random weights would overflow."""
    for layer in model.modules():
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm) and layer.affine:
            layer.weight.mul_(0.5)


def _shrink(part: Any, side: int) -> None:
    """Bring the sizes of images in a config to ``side``, in place."""
    if isinstance(part, (list, tuple)):
        for each in part:
            _shrink(each, side)
    if not isinstance(part, dict):
        return
    if "times" in part:  # an epoch is one step
        part["times"] = 1
    largest = max([side, *(x for key in SIZES for x in _numbers(part.get(key)))])
    for key, value in part.items():
        if key in SIZES:
            part[key] = _scaled(value, side / largest)
        else:
            _shrink(value, side)


def _numbers(value: Any) -> Iterator[int]:
    if isinstance(value, (list, tuple)):
        for each in value:
            yield from _numbers(each)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield abs(value)


def _scaled(value: Any, factor: float) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_scaled(each, factor) for each in value)
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) < 32:
        return value
    return round(value * factor) or 1


@contextmanager
def _limited(seconds: int) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TimeoutError(f"not done after {seconds} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
