"""A step on one blank image when the model is built, which shows losses that do not fit.

Recorders, connectors and losses meet by shape: a fault is an error before any data is read.
"""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.detectors.base import BaseDetector
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.logging import print_log
from mmengine.structures import InstanceData, PixelData
from mmrazor.models.distillers import ConfigurableDistiller
from torch import Tensor, nn

from kd_det.algorithms import heads
from kd_det.algorithms.wiring import WiringError, describe_arguments
from kd_det.losses import CentersNotSetError

# Pixels. One more than a multiple of 128: any two divisors of a power of two, 8 and 128 for
# example, that give maps of different size for some image do so for this one.
SIDE = 129
# Necks that add maps of neighbouring levels need a multiple of 32, unless images are padded to one.
DETECTOR_SIDES = (SIDE, 160)
# Classifiers are often made for images of one size, mostly of CIFAR's or of ImageNet's.
CLASSIFIER_SIDES = (32, 224)
Shapes = dict[str, dict[str, str]]


@torch.no_grad()
def dry_run(model: Any) -> tuple[Shapes, str]:
    """Run a step of a :class:`kd_det.TeacherDistill` and restore its buffers and the RNG state.

    Returns:
        Shapes of all loss arguments, and of the batches that student and teacher got, as text.

    Raises:
        kd_det.algorithms.WiringError: If a loss does not fit images of any size.
    """
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    training = model.training
    model.eval()
    # Detectors with denoising queries ask the detector, and dense heads themselves, what to put
    # out; layers stay in eval mode.
    for asked in (model.student, getattr(model.student, "bbox_head", None)):
        if isinstance(asked, nn.Module):
            asked.training = True
    failed: list[Exception] = []
    try:
        with torch.random.fork_rng(devices=[]):
            detects = isinstance(model.student, BaseDetector)
            for side in DETECTOR_SIDES if detects else CLASSIFIER_SIDES:
                try:
                    return _run_blank(model, side)
                except Exception as error:  # some models run on no blank image
                    if detects and isinstance(error, WiringError):
                        raise
                    failed.append(error)
                finally:
                    model.drop_records()
    finally:
        heads.clear_history(model.student)
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
        model.train(training)
    for found in failed:
        if isinstance(found, WiringError):
            raise found
    text = f"not checked, since a model does not run on a blank image: {failed[0]!r}"
    print_log(f"Losses and connectors were {text}", logger="current", level=30)
    return {}, text


def _run_blank(model: Any, side: int) -> tuple[Shapes, str]:
    inputs, samples = blank_batch(
        model.data_preprocessor, side, isinstance(model.student, BaseDetector)
    )
    if not getattr(model.student, "with_mask", True):
        for sample in samples:  # RTMDet's assigner would read a mask where there is one
            del sample.gt_instances.masks
    converted = model.teacher_input(inputs, samples)
    model.record(inputs, samples)
    hint = model.teacher_input.hint if inputs.shape != converted.shape else ""
    batches = f"{list(inputs.shape)} to student, {list(converted.shape)} to teacher"
    found = _check_losses(model.distiller, hint)
    return found, f"shapes are those of one image of {side} x {side} pixels: {batches}"


def blank_batch(
    preprocessor: nn.Module, side: int = SIDE, detects: bool = True
) -> tuple[Tensor, list[Any]]:
    """Make a batch ``[1, 3, H, W]`` of one blank image of ``side`` pixels a side with one object.

    It is preprocessed as in evaluation: without ``batch_augments``, which may need a running
    training.
    """
    if detects:
        sample: Any = _detection_sample(side)
    else:
        from mmpretrain.structures import DataSample

        sample = DataSample(metainfo=dict(img_shape=(side, side))).set_gt_label(0)
    batch = preprocessor(dict(inputs=torch.zeros(1, 3, side, side), data_samples=[sample]), False)
    inputs, samples = batch["inputs"], batch["data_samples"]
    if detects:
        # HTC and SCNet also learn a map of the scene, of the size of the padded image.
        scene = torch.zeros(1, *inputs.shape[-2:], dtype=torch.int64, device=inputs.device)
        samples[0].gt_sem_seg = PixelData(sem_seg=scene)
    return inputs, samples


def _detection_sample(side: int) -> DetDataSample:
    size = (side, side)
    sizes = dict.fromkeys(("img_shape", "ori_shape", "pad_shape", "batch_input_shape"), size)
    sample = DetDataSample(metainfo=dict(sizes, scale_factor=(1.0, 1.0)))
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[16.0, 16.0, 96.0, 96.0]]),
        labels=torch.tensor([0]),
        masks=BitmapMasks(torch.zeros(1, *size).numpy(), *size),
    )
    sample.ignored_instances = InstanceData(
        bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64)
    )
    return sample


def _check_losses(distiller: ConfigurableDistiller, hint: str) -> Shapes:
    """Call every loss on the records of a dry run; return the shape of each argument.

    Raises:
        WiringError: If a loss or connector refuses its arguments; names both sides, and ``hint``.
    """
    found: Shapes = {}
    for name, arguments in distiller.loss_forward_mappings.items():
        shapes = found[name] = {}
        values = {}
        try:
            for argument, record in arguments.items():
                raw = distiller.get_record(**{**record, "connector": None, "connector_idx": None})
                shapes[argument] = _shape_of(raw)  # of the message, if the connector fails
                values[argument] = distiller.get_record(**record)
                shapes[argument] = _shape_of(values[argument])
            distiller.distill_losses[name](**values)
        except CentersNotSetError:
            continue  # shapes were checked before; centers come with the pre-pass
        except Exception as error:
            sources = describe_arguments(distiller, name)
            got = "; ".join(f"{a} from {sources[a]}: {shapes.get(a, '?')}" for a in sources)
            raise WiringError(
                f"distillation loss '{name}' ({type(distiller.distill_losses[name]).__name__}) "
                f"does not fit what it is given. {got}. {error}{hint}"
            ) from error
    return found


def _shape_of(value: Any) -> str:
    """Shape of a record: a tensor or a sequence of them."""
    if isinstance(value, Tensor):
        return str(list(value.shape))
    if isinstance(value, (list, tuple)):
        return f"{len(value)} x " + " ".join(map(_shape_of, value))
    return type(value).__name__
