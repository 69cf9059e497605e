"""Checks a distiller's wiring with one small dry run when the model is built.

Recorders, connectors and losses meet by name and by shape. A dry run of student and teacher
on one blank image shows every fault of either kind before any data is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from mmdet.models.detectors.base import BaseDetector
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData, PixelData
from mmrazor.models.distillers import ConfigurableDistiller
from torch import Tensor, nn

from kd_det.errors import UserError
from kd_det.losses import CentersNotSetError

# One pixel more than a multiple of 128: any two divisors of a power of two, 8 and 128 for example,
# that give maps of different size for some image do so for this one.
SIDE = 129


class WiringError(UserError, ValueError):
    """Recorders, connectors and losses of a distiller do not fit together."""


def check_sources(recorders: Mapping[str, Any], model: nn.Module, who: str) -> None:
    """Raise :class:`WiringError` if a module recorder names a module that ``model`` lacks."""
    names = {name for name, _ in model.named_modules()}
    for recorder, cfg in recorders.items():
        for source in _module_sources(cfg):
            if source not in names:
                raise WiringError(
                    f"{who} recorder '{recorder}' has source '{source}', but the {who} "
                    f"{type(model).__name__} has no such module; it has "
                    f"{modules_near(model, source)}"
                )


def _module_sources(recorder: Mapping[str, Any]) -> Iterator[str]:
    """Modules that a recorder's config names, also those of the levels of a pyramid."""
    for level in recorder.get("levels", ()):
        yield from [level] if isinstance(level, str) else _module_sources(level)
    if str(recorder.get("type", "")).split(".")[-1].startswith("Module"):
        yield recorder.get("source", "")


def modules_near(model: nn.Module, name: str) -> str:
    """Modules of ``model`` that may have been meant by ``name``, as text."""
    names = (found for found, _ in model.named_modules() if found)
    near = sorted(n for n in names if n.count(".") <= name.count(".") and _related(n, name))
    return ", ".join(near[:12])


def _related(name: str, source: str) -> bool:
    parent = source
    while "." in parent:
        parent = parent.rpartition(".")[0]
        if name.startswith(parent):
            return True
    return "." not in name


def check_mappings(distiller: Mapping[str, Any]) -> None:
    """Raise :class:`WiringError` for names in a distiller's config that lead nowhere."""
    losses = distiller.get("distill_losses") or {}
    mappings = distiller.get("loss_forward_mappings") or {}
    for name in losses:
        if "loss" not in name:
            raise WiringError(
                f"MMEngine sums what has 'loss' in its name; expected such a name, found '{name}'"
            )
        if name not in mappings:
            raise WiringError(
                f"distillation loss '{name}' has no entry in loss_forward_mappings, which has "
                f"{sorted(mappings)}; it would never be computed"
            )
    for name, arguments in mappings.items():
        if name not in losses:
            raise WiringError(
                f"loss_forward_mappings names '{name}', but distill_losses has {sorted(losses)}"
            )
        for argument, record in arguments.items():
            side = "student" if record.get("from_student") else "teacher"
            for kind, known in (
                ("recorder", distiller.get(f"{side}_recorders") or {}),
                ("connector", distiller.get("connectors") or {}),
            ):
                if record.get(kind) is not None and record[kind] not in known:
                    raise WiringError(
                        f"argument '{argument}' of distillation loss '{name}' names {side} "
                        f"{kind} '{record[kind]}', but there are {sorted(known)}"
                    )


def describe(distiller: ConfigurableDistiller, loss_name: str) -> dict[str, str]:
    """Where each argument of a loss comes from, as text."""
    described = {}
    for argument, record in distiller.loss_forward_mappings[loss_name].items():
        side = "student" if record["from_student"] else "teacher"
        recorders = getattr(distiller, f"{side}_recorders").recorders
        text = f"{side} {recorders[record['recorder']].source}"
        if record.get("connector"):
            connector = distiller.connectors[record["connector"]]
            text += f" -> {record['connector']} ({type(connector).__name__})"
        described[argument] = text
    return described


def shapes(value: Any) -> str:
    """Shape of a record: a tensor or a sequence of them."""
    if isinstance(value, Tensor):
        return str(list(value.shape))
    if isinstance(value, (list, tuple)):
        return f"{len(value)} x " + " ".join(shapes(v) for v in value)
    return type(value).__name__


def is_detector(model: nn.Module) -> bool:
    """Whether a model is one of mmdet's detectors; others are taken for classifiers."""
    return isinstance(model, BaseDetector)


def sides(model: nn.Module) -> tuple[int, ...]:
    """Sides of blank images, in pixels, of which one must fit ``model`` and its losses.

    Classifiers are often made for images of one size, mostly of CIFAR's or of ImageNet's.
    """
    return (SIDE,) if is_detector(model) else (32, 224)


def dry_run_input(
    preprocessor: nn.Module | None = None, model: nn.Module | None = None, side: int = SIDE
) -> tuple[Tensor, list[Any]]:
    """One blank image of ``side`` pixels a side with one object, as a model gets it.

    Args:
        preprocessor: Pads the image as in evaluation: without ``batch_augments``, which may need
            a running training. With None the image stays ``[1, 3, side, side]``.
        model: A detector or classifier; None for a detector.
        side: Height and width.
    """
    detects = model is None or is_detector(model)
    sample = _detection_sample(side) if detects else _classification_sample(side)
    batch: dict[str, Any] = {"inputs": torch.zeros(1, 3, side, side), "data_samples": [sample]}
    if preprocessor is not None:
        batch = preprocessor(batch, training=False)
    inputs, samples = batch["inputs"], batch["data_samples"]
    if detects:
        # HTC and SCNet also learn a map of the scene, of the size of the padded image.
        scene = torch.zeros(1, *inputs.shape[-2:], dtype=torch.int64, device=inputs.device)
        samples[0].gt_sem_seg = PixelData(sem_seg=scene)
    return inputs, samples


def _detection_sample(side: int) -> DetDataSample:
    size = (side, side)
    sample = DetDataSample(
        metainfo=dict(
            img_shape=size,
            ori_shape=size,
            pad_shape=size,
            batch_input_shape=size,
            scale_factor=(1.0, 1.0),
        )
    )
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[16.0, 16.0, 96.0, 96.0]]),
        labels=torch.tensor([0]),
        masks=BitmapMasks(torch.zeros(1, *size).numpy(), *size),
    )
    sample.ignored_instances = InstanceData(
        bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64)
    )
    return sample


def _classification_sample(side: int) -> Any:
    from mmpretrain.structures import DataSample

    return DataSample(metainfo=dict(img_shape=(side, side))).set_gt_label(0)


def check_losses(distiller: ConfigurableDistiller, hint: str = "") -> dict[str, dict[str, str]]:
    """Call every loss on what a dry run recorded; returns the shape of each argument.

    Args:
        distiller: The distiller, with the records of a dry run.
        hint: What else may be the reason of a fault, for its message.

    Raises:
        WiringError: If a loss or connector refuses its arguments; names both sides.
    """
    found: dict[str, dict[str, str]] = {}
    for name, arguments in distiller.loss_forward_mappings.items():
        found[name] = {}
        sides = describe(distiller, name)
        try:
            values = {}
            for argument, record in arguments.items():
                raw = distiller.get_record(**{**record, "connector": None, "connector_idx": None})
                found[name][argument] = shapes(raw)
                values[argument] = distiller.get_record(**record)
                found[name][argument] = shapes(values[argument])
            distiller.distill_losses[name](**values)
        except CentersNotSetError:
            continue  # shapes were checked before; centers come with the pre-pass
        except Exception as error:
            got = "; ".join(f"{a} from {sides[a]}: {found[name].get(a, '?')}" for a in sides)
            raise WiringError(
                f"distillation loss '{name}' ({type(distiller.distill_losses[name]).__name__}) "
                f"does not fit what it is given. {got}. {error}{hint}"
            ) from error
    return found
